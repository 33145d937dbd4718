"""Version, help, formats, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, SAMPLES, Run

from fatpatch import __version__
from fatpatch.base.errors import EXIT_CODES, FatpatchError
from fatpatch.commands import COMMANDS
from fatpatch.formats.names import FORMATS


def test_version_and_help(run: Run) -> None:
    assert run("--version").stdout == f"fatpatch {__version__}\n"
    text = run("--help").stdout
    assert all(name in text for name in COMMANDS)
    assert all(words in text for _, words in EXIT_CODES)
    for name in COMMANDS:
        assert run(name, "--help").returncode == 0


def test_usage_errors(run: Run) -> None:
    for arguments in ((), ("nonsense",), ("db",), ("inspect",), ("inspect", "--nope", "x"), ("formats", "nope"), ("extract", "x")):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", FORMATS)
def test_formats_prints_each_layout(run: Run, name: str) -> None:
    done = run("formats", name)
    assert done.returncode == 0
    assert f"({name})" in done.stdout.splitlines()[0]
    assert "Sources" in done.stdout


def test_every_error_class_has_a_documented_exit_code() -> None:
    known = {code for code, _ in EXIT_CODES}
    classes = [FatpatchError]
    while classes:
        kind = classes.pop()
        assert kind.exit_code in known
        classes += kind.__subclasses__()


def test_hot_path_imports_no_heavy_library() -> None:
    """What a listing may import: nothing that costs start-up without being used."""
    import subprocess
    import sys

    code = (
        "import sys; sys.argv=['fatpatch','inspect','samples/libkernels.so']; from fatpatch.commands import run; run(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in done.stdout.split("\n")[-2].split()}
    assert not loaded & {
        "construct",
        "lief",
        "rich",
        "elftools",
        "capstone",
        "msgpack",
        "zstandard",
        "lz4",
        "json",
        "zipfile",
        "tarfile",
        "multiprocessing",
    }


def test_a_wrong_word_gets_a_suggestion(run: Run) -> None:
    """trial.md, kind 11: docter, sm61, sm_999, RTX 9090, an option."""
    for arguments, words in (
        (["docter", "x"], "did you mean doctor?"),
        (["check", "libkernels.so", "--require", "sm_999"], "did you mean sm_"),
        (["check", "libkernels.so", "--require", "sm61"], "expected targets such as sm_86"),
        (["doctor", "libkernels.so", "--gpu", "RTX 9090"], "RTX 5090"),
        (["doctor", "libkernels.so", "--gpu", "GTX 106"], "GTX 1060"),
        (["doctor", "libkernels.so", "--gpus", "1060"], "--gpu"),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr


def test_exists_already_is_one_exit_code(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    (tmp_path / "fatpatch.toml").write_text("")
    (tmp_path / "index.json").write_text("{}")
    for arguments in (
        ["prune", "libkernels.so", "--drop", "sm_50", "-o", tmp_path / "x"],
        ["report", "libkernels.so", "-o", tmp_path / "x"],
        ["extract", "libkernels.so", "-d", tmp_path],
        ["check", "libkernels.so", "--init", "--policy", tmp_path / "fatpatch.toml"],
    ):
        done = run(*arguments)
        assert (done.returncode, "exists already" in done.stderr) == (6, True), (arguments, done.stderr)


def test_defaults_from_the_environment(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("FATPATCH_GPU", "GTX 1060,RTX 3060")
    monkeypatch.setenv("FATPATCH_DRIVER", "535.154")
    out = run("doctor", "libkernels.so").stdout
    assert "GeForce GTX 1060" in out
    assert "GeForce RTX 3060" in out


def test_the_policy_of_a_folder_above_is_found(run: Run, tmp_path: Path) -> None:
    (tmp_path / "fatpatch.toml").write_text('require = ["sm_89"]\n')
    (tmp_path / "a/b").mkdir(parents=True)
    done = run("check", SAMPLES / "libkernels.so", cwd=tmp_path / "a/b")
    assert done.returncode == 1
    assert "policy: ../../fatpatch.toml" in done.stdout
