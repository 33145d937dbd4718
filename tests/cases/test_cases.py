"""The inputs that version 0.1.0 answered wrongly, one test a row of their README, with the right answers."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SAMPLES, Run, required
from edit.wine import build_loader, load, wine_available

FOLDER = ROOT.parent / "shared/fixtures/cases"


def case(name: str) -> Path:
    if not FOLDER.is_dir():
        required(f"cases in {FOLDER}")
    return FOLDER / name


def inspected(run: Run, name: str, *options: str) -> tuple[int, dict[str, Any]]:
    done = run("inspect", case(name), "--format", "json", *options)
    return done.returncode, json.loads(done.stdout)["files"][0]


def images(file: dict[str, Any]) -> list[dict[str, Any]]:
    own = [image for payload in file.get("payloads", []) for image in payload["images"]]
    return own + [image for member in file.get("members", []) for image in images(member)]


def outcome(run: Run, name: str, *options: str) -> tuple[str, dict[str, Any]]:
    done = run("doctor", case(name), "--format", "json", *options)
    document = json.loads(done.stdout)
    (verdict,) = document["files"]
    return verdict["outcome"], verdict


H200 = ("--gpu", "H200", "--driver", "580.159")


# Reading


def read_kernels(run: Run, name: str) -> dict[str, list[tuple[int, int]]]:
    _, file = inspected(run, name, "--kernels")
    (image,) = images(file)
    return {kernel["name"]: [(each["offset"], each["size"]) for each in kernel["params"]] for kernel in image["kernels"]}


@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("ptx-nospace.ptx", {"k": [(0, 8), (8, 4)]}),
        ("ptx-oneline.ptx", {"k": [(0, 4)], "k2": [(0, 8)]}),
        ("ptx-hexarr.ptx", {"k": [(0, 32), (32, 4)]}),
        ("ptx-ptrnospace2.ptx", {"k": [(0, 8), (8, 4)]}),
    ],
)
def test_ptx_is_read_as_ptxas_reads_it(run: Run, name: str, kernels: dict[str, list[tuple[int, int]]]) -> None:
    assert read_kernels(run, name) == kernels


def test_ptx_with_other_parameters_is_refused(run: Run) -> None:
    done = run("graft", case("r.cubin"), "--ptx", case("wrong.ptx"), "--dry-run")
    assert done.returncode == 6
    assert "k takes 2 parameters in 12 bytes, the module's 1 in 4" in done.stderr


def test_no_target_is_invented(run: Run) -> None:
    code, file = inspected(run, "ptx-no-target.ptx")
    assert code == 4
    assert [image["target"] for image in images(file)] == ["unknown"]


@pytest.mark.parametrize(
    ("name", "targets", "how"),
    [("librod.so", ["sm_61", "sm_90a"], "ELF header"), ("ptx-text-in-rodata.so", ["compute_50"], "PTX text")],
)
def test_unwrapped_images_are_found_and_told_how(run: Run, name: str, targets: list[str], how: str) -> None:
    code, file = inspected(run, name)
    assert code == 0
    assert [image["target"] for image in images(file)] == targets
    assert how in run("inspect", case(name), "-v").stdout
    assert outcome(run, name, "--gpu", "GTX 1060")[0] == "runs"


def test_a_program_that_chooses_among_its_own_images_is_not_judged_by_those_for_other_gpus(run: Run) -> None:
    assert outcome(run, "librod.so", "--gpu", "RTX 3060")[0] == "not-read"
    text = run("doctor", case("librod.so"), "--gpu", "RTX 3060").stdout
    assert "chooses by itself among 2 images, and none is for this GPU: sm_61, sm_90a" in " ".join(text.split())


@pytest.mark.parametrize("name", ["u3.zip", "verify-crash.zip"])
def test_sound_archives(run: Run, name: str) -> None:
    assert run("verify", case(name)).returncode == 0


def test_offload_binary_version_2(run: Run) -> None:
    code, file = inspected(run, "v2.bin")
    assert code == 0
    assert [image["target"] for image in images(file)] == ["gfx1031", "gfx1030"]
    verified = run("verify", case("v2.bin"))
    assert verified.returncode == 1  # both entries hold the same object, which is for gfx1031
    assert "the entry says gfx1030, the image itself gfx1031" in verified.stdout


def test_triples_that_begin_with_amdgpu(run: Run) -> None:
    _, file = inspected(run, "newtriple.hipfb")
    assert sorted(image["target"] for image in images(file)) == ["gfx1030", "gfx1031", "gfx908"]
    assert "gfx1031" in run("doctor", case("newtriple.hipfb"), "--gpu", "gfx1031").stdout


@pytest.mark.parametrize("name", ["sparse.gnu.tar", "paxsize.tar"])
def test_sparse_and_pax_sizes(run: Run, name: str) -> None:
    code, file = inspected(run, name)
    assert code == 0
    assert len(images(file)) == 11


def test_both_members_of_the_pax_archive(run: Run) -> None:
    _, file = inspected(run, "paxsize.tar")
    assert ("libkernels.so", 66696) in [(member["path"], member["size"]) for member in file["members"]]
    assert "2 members" in run("inspect", case("paxsize.tar")).stdout


def test_bytes_behind_the_end_of_gzip(run: Run) -> None:
    done = run("inspect", case("a.tar.gz.garbage.tgz"), "--format", "json")
    assert done.returncode == 0
    assert len(images(json.loads(done.stdout)["files"][0])) == 11
    assert "behind the end of the stream" in done.stdout


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_32_bit_cubin_is_named(run: Run, command: str) -> None:
    done = run(command, case("cubin32-sm20.cubin"))
    assert done.returncode == 5
    assert "32-bit cubin of sm_20" in done.stdout + done.stderr


def test_what_is_not_read_is_not_nothing(run: Run, tmp_path: Path) -> None:
    path = case("a.7z")
    for command in (["inspect", path], ["verify", path]):
        done = run(*command)
        assert done.returncode == 5
        assert "7z" in done.stdout + done.stderr
    assert run("doctor", path, "--gpu", "H200").stdout.startswith("CANNOT TELL")
    (tmp_path / "a.7z").write_bytes(path.read_bytes())
    checked = run("check", tmp_path, "--select", "FP0")
    assert checked.returncode == 1
    assert "7z" in checked.stdout


def test_lz4_is_read(run: Run) -> None:
    code, file = inspected(run, "a.tar.lz4")
    assert (code, len(images(file))) == (0, 11)
    assert run("verify", case("a.tar.lz4")).returncode == 0


def test_code_objects_whose_symbols_have_no_size(run: Run) -> None:
    _, file = inspected(run, "no-symbol-size-a.co", "--kernels")
    (image,) = images(file)
    assert all(kernel["code_size"] for kernel in image["kernels"])
    done = run("diff", case("no-symbol-size-a.co"), case("no-symbol-size-b.co"), "--format", "json")
    (difference,) = json.loads(done.stdout)["files"]
    assert len(difference["other_code"]) == 1
    assert "scale" in difference["other_code"][0]["kernel"]


def test_the_target_in_the_note_of_triton(run: Run) -> None:
    assert run("check", case("triton-k.hsaco"), "--select", "FP0").returncode == 0


def test_java_classes_are_no_mach_o(run: Run) -> None:
    assert "Mach-O" not in run("inspect", case("test.class")).stdout


def test_a_whiteout_deletes_the_libraries_of_a_lower_layer(run: Run) -> None:
    """The second layer deletes /opt/app/lib; the DLL beside it stays."""
    done = run("inspect", case("app-wh.tar"), "--format", "json")
    file = json.loads(done.stdout)["files"][0]
    assert [member["path"] for member in file["members"]] == ["/opt/app/donor.dll"]
    assert (file["image"]["deleted"], done.returncode) == (2, 0)


def test_uninitialised_variables_take_no_bytes(run: Run) -> None:
    assert run("verify", case("rdc-big-global.cubin")).returncode == 0
    assert inspected(run, "rdc-big-global.cubin", "--kernels")[0] == 0


def test_cells_that_a_spreadsheet_would_compute(run: Run) -> None:
    text = run("inspect", case("nasty.so"), "--format", "csv", "--kernels").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) > 4
    assert not [cell for row in rows for cell in row.values() if cell and cell.lstrip()[:1] in ("=", "+", "-", "@")]


# Judging


def test_a_body_that_only_prints(run: Run) -> None:
    word, verdict = outcome(run, "printstub.fatbin", *H200)
    assert word != "runs"
    assert "prints" in json.dumps(verdict)


def test_a_kernel_that_is_real_on_other_gpus_only(run: Run) -> None:
    assert outcome(run, "real-only-in-sm_100a.fatbin", "--gpu", "RTX 4090", "--driver", "580.65.06")[0] == "runs"


def test_sm_80_code_on_orin(run: Run) -> None:
    word, verdict = outcome(run, "sm80_only.fatbin", "--gpu", "Jetson Orin Nano")
    assert (word, [module["cuda_error"] for module in verdict["modules"]]) == ("will-not-run", [209])


@pytest.mark.parametrize(
    ("name", "option", "error"),
    [
        ("ptx-option-uumn.fatbin", "--force-ptx-jit", None),
        ("ptx-9.5-and-unknown-option.fatbin", "--force-ptx-jit", 222),
        ("rdc-constant2.fatbin", "--eager", 200),
    ],
)
def test_what_the_driver_says(run: Run, name: str, option: str, error: int | None) -> None:
    word, verdict = outcome(run, name, *H200, option)
    assert (word == "runs") == (error is None)
    assert [module["cuda_error"] for module in verdict["modules"]] == [error]


# Editing


def answer_of(library: Path) -> str:
    """What a function of the library returns in a process of its own."""
    program = f"import ctypes; print(ctypes.CDLL({str(library)!r})._Z4worki(7))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "donor", "words"),
    [
        ("p_V2_pie", "donor.so", "the instruction 'mov' at 0x1139"),
        ("lib7.so", "donor.so", "exports the symbol 'fat_b'"),
        ("re.dll", "donor.dll", "exports the symbol 'fat_b'"),
        ("pe-arm64-ref.dll", "donor.dll", "the instructions 'adrp' and 'add'"),
        ("pe-x64-ref.dll", "donor.dll", "the instruction 'lea'"),
    ],
)
def test_other_ways_to_a_payload_are_refused_by_their_place(run: Run, tmp_path: Path, name: str, donor: str, words: str) -> None:
    out = tmp_path / "t"
    done = run("graft", case(name), "--from", SAMPLES / donor, "--target", "sm_61", "-o", out)
    assert (done.returncode, out.exists()) == (6, False)
    assert words in done.stderr


def test_the_refused_program_reads_its_payload(tmp_path: Path) -> None:
    """What the edit would have broken: the probe reads the magic of the fatbin itself."""
    done = subprocess.run([case("p_V2_pie")], capture_output=True, text=True, check=False)
    assert done.stdout == "probe ba55ed50 wrapper ba55ed50\n"


@pytest.mark.parametrize("command", [["prune", "--drop", "sm_50", "--force", "--compact"], ["recompress", "--codec", "zstd", "--compact"]])
def test_the_export_of_a_dll_is_refused_by_every_edit(run: Run, tmp_path: Path, command: list[str]) -> None:
    done = run(command[0], case("re.dll"), *command[1:], "-o", tmp_path / "t")
    assert done.returncode == 6
    assert "exports the symbol 'fat_b'" in done.stderr


CHAINS = {
    "nb.so": [["graft", "--from", str(SAMPLES / "donor.so"), "--target", "sm_61"], ["prune", "--drop", "sm_90", "--force", "--compact"]],
    "c2.so": [["recompress", "--codec", "zstd", "--compact"], ["expand"]],
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_end_sound_and_undo_to_the_identical_bytes(run: Run, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    original = case(name).read_bytes()
    path.write_bytes(original)
    before = answer_of(path)
    for command, *options in CHAINS[name]:
        done = run(command, path, *options, "--in-place")
        assert done.returncode == 0, done.stderr
        assert run("verify", path).returncode == 0
        assert answer_of(path) == before
    while path.with_name(f"{name}.fatpatch-undo").exists():
        assert run("undo", path).returncode == 0
    assert path.read_bytes() == original
    assert answer_of(path) == before


def test_expand_with_a_second_section_behind(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "c2.so"
    done = run("expand", case("c2.so"), "-o", out)
    assert done.returncode == 0, done.stderr
    assert answer_of(out) == answer_of(case("c2.so"))


def test_the_refused_dll_loads_under_wine(tmp_path: Path) -> None:
    if not wine_available():
        pytest.skip("needs Wine and mingw-w64: apt-get install wine64 wine gcc-mingw-w64-x86-64")
    loaded = load(build_loader(tmp_path), case("re.dll"))
    assert all(fatbin.good for fatbin in loaded.fatbins)
