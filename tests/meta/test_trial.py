"""What users found wrong in the first trial, kinds 8 to 12: each has a test, and the test exists."""

from __future__ import annotations

import ast

import pytest
from conftest import ROOT

FOUND = {
    "8: --driver 12.0, the CUDA number of nvidia-smi": "gpus/test_profiles.py::test_a_driver_by_the_cuda_version_that_nvidia_smi_shows",
    "8: GRID A100D-4C, A30-12C, Jetson Orin Nano Super": "gpus/test_profiles.py::test_part_of_a_gpu",
    "8: RTX 9090 suggests RTX A400": "gpus/test_profiles.py::test_nearest_by_number",
    "8: GTX 106 suggests Jetson TX1": "commands/test_general.py::test_a_wrong_word_gets_a_suggestion",
    "9: doctor refuses a folder": "commands/test_environment.py::test_a_folder_of_libraries",
    "9: inspect refuses a folder": "named/test_resolve.py::test_every_reading_command_takes_a_name",
    "9: doctor bitsandbytes cannot open": "commands/test_environment.py::test_a_distribution_by_its_name",
    "10: one column a file": "commands/test_width.py::test_several_files_on_one_gpu",
    "10: the path of the wheel in every line (inspect)": "commands/test_width.py::test_inspect_has_one_row_a_library",
    "10: the path of the wheel in every line (check)": "commands/test_width.py::test_check_says_once_what_holds_for_all",
    "10: graft errors of 3,950 characters": "commands/test_width.py::test_a_refusal_is_short",
    "10: diff of two wheels, 851 lines": "commands/test_width.py::test_diff_is_a_summary_first",
    "10: static-archive members judged as if loaded": "verdicts/test_aside.py::test_a_static_library_that_loads_says_nothing_of_the_rest",
    "11: docter, sm61, --require sm_999": "commands/test_general.py::test_a_wrong_word_gets_a_suggestion",
    "11: exists-already is 6 or 3": "commands/test_general.py::test_exists_already_is_one_exit_code",
    "11: --overwrite against --force": "commands/test_help.py::test_overwrite_and_force_mean_one_thing",
    "11: Ctrl-C of audit prints tracebacks of workers": "commands/test_hostile.py::test_interrupted_audits_print_no_traceback_of_a_worker",
    "11: the policy of a parent folder": "commands/test_general.py::test_the_policy_of_a_folder_above_is_found",
    "11: query --sql takes all memory": "commands/test_hostile.py::test_questions_without_end",
    "11: policy a.a.a... takes 60 s": "commands/test_hostile.py::test_policies_of_dots_and_brackets",
    "11: --kernel (a+)+$ hangs": "commands/test_hostile.py::test_expressions_without_end",
    "12: targets scrolled out of the kernel table": "commands/test_in_browser.py::test_long_names_keep_what_differs_and_targets_stay_visible",
    "12: the file selector cuts names to the common part": "commands/test_in_browser.py::test_names_are_said_once",
    "12: paragraphs of 2,800 px that are nearly alike": "commands/test_in_browser.py::test_names_are_said_once",
    "12: cards of an audit disagree with its tables": "commands/test_in_browser.py::test_cards_and_tables_of_an_index_agree",
    "12: a phone cuts off columns": "commands/test_in_browser.py::test_nothing_is_cut_off_on_a_phone",
    "12: print cuts off columns": "commands/test_in_browser.py::test_nothing_is_cut_off_on_paper",
    "install: a clone without symbolic links": "meta/test_project.py::test_a_clone_without_symbolic_links_works",
    "install: sdist has tests without samples": "meta/test_install.py::test_the_sdist_has_what_its_tests_need",
}


@pytest.mark.parametrize("found", FOUND)
def test_it_has_a_test(found: str) -> None:
    path, _, name = FOUND[found].partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text("utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    assert any(isinstance(node, ast.Assert | ast.With) for node in ast.walk(function)) or "fits(" in ast.unparse(function)
