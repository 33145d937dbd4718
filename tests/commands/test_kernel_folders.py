"""Folders of kernel libraries: which GPUs they have files for, what is missing beside its siblings, and what doctor says of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.archive import zip_file
from builders.container_image import Entry, Image, as_tar, docker_files, layer
from builders.kernel_folder import DAT, hipblaslt, miopen, object_for, rocblas
from conftest import ROOT, SAMPLES, Run

from fatpatch.scan.kernel_folders import kernel_folders

LACKING = "TensileLibrary_Type_SS_Contraction_l_Alik_Bljk_Cijk_Dijk_gfx900.co"


@pytest.fixture
def rocm(tmp_path: Path) -> Path:
    """gfx900 lacks one object of rocBLAS, gfx1101 one of hipBLASLt."""
    rocblas(tmp_path / "rocm", ["gfx900", "gfx1030", "gfx1100"], without=[LACKING])
    hipblaslt(tmp_path / "rocm", ["gfx942", "gfx1100", "gfx1101"], without=["extop_gfx1101.co"], nested=True)
    miopen(tmp_path / "rocm", ["gfx1030"])
    return tmp_path / "rocm"


def rows(run: Run, what: Path, gpu: str) -> dict[str, tuple[str, str]]:
    """Of each row its outcome, and what stands against it."""
    document: dict[str, Any] = json.loads(run("doctor", what, "--gpu", gpu, "--format", "json").stdout)
    return {
        file["path"]: (file["outcome"], file["incomplete"] or (file["trouble"] or {"message": ""})["message"]) for file in document["files"]
    }


BLAS, LT = "rocBLAS kernels in lib/rocblas/library", "hipBLASLt kernels in lib/hipblaslt/library"


@pytest.mark.parametrize(
    ("gpu", "blas", "lt"),
    [
        ("gfx1100", "runs", "runs"),
        ("gfx1030", "runs", "will-not-run"),
        ("gfx900", "may-fail-in-part", "will-not-run"),
        ("gfx1101", "will-not-run", "may-fail-in-part"),
        ("gfx1036", "will-not-run", "will-not-run"),
    ],
)
def test_a_program_loads_the_files_for_its_gpu(run: Run, rocm: Path, gpu: str, blas: str, lt: str) -> None:
    found = rows(run, rocm, gpu)
    assert (found[BLAS][0], found[LT][0]) == (blas, lt)
    if blas == "will-not-run":
        assert f"no files for {gpu} in lib/rocblas/library, only for gfx900, gfx1030, gfx1100" in found[BLAS][1]
        assert "Cannot read TensileLibrary.dat" in found[BLAS][1]
    if gpu == "gfx900":
        assert LACKING in found[BLAS][1]
    if gpu == "gfx1101":
        assert "extop_gfx1101.co" in found[LT][1]


def test_the_text(run: Run, rocm: Path) -> None:
    done = run("doctor", rocm, "--gpu", "gfx1036")
    assert done.returncode == 1
    assert done.stdout.startswith("WILL NOT RUN: rocm on ")
    assert "rocBLAS ends the program (Cannot read TensileLibrary.dat)." in " ".join(done.stdout.split())
    assert run("doctor", rocm, "--gpu", "gfx1100").returncode == 0


def test_the_folder_itself(run: Run, rocm: Path) -> None:
    """Named by itself, its place says whose it is."""
    done = run("doctor", rocm / "lib/rocblas/library", "--gpu", "gfx1036")
    assert "rocBLAS ends the program" in " ".join(done.stdout.split())


@pytest.mark.parametrize(("gpu", "outcome"), [("gfx1031", "will-not-run"), ("gfx1030", "not-this-gpu")])
def test_the_library_beside_it(run: Run, rocm: Path, gpu: str, outcome: str) -> None:
    """The library's own bundle is for gfx1031 alone; its folder is not."""
    shutil.copy(SAMPLES / "libhipdemo.so", rocm / "lib/librocblas.so.4")
    ((path, (found, why)),) = rows(run, rocm / "lib/librocblas.so.4", gpu).items()
    assert path.endswith("librocblas.so.4")
    if outcome == "will-not-run":
        assert found == outcome
        assert f"no files for {gpu} in rocblas/library" in why
    else:
        assert "rocblas/library" not in why


def test_a_library_without_code_of_its_own(run: Run, rocm: Path) -> None:
    """Its kernels are in the folder: that is no answer, and says where to ask."""
    shutil.copy(SAMPLES / "donor.so", rocm / "lib/libhipblaslt.so.0")
    done = run("doctor", rocm / "lib/libhipblaslt.so.0", "--gpu", "gfx1100")
    assert done.stdout.startswith("CANNOT TELL")
    assert "in the folder hipblaslt/library beside it" in " ".join(done.stdout.split())


def test_inspect_lists_targets_and_gaps(run: Run, rocm: Path) -> None:
    files = json.loads(run("inspect", rocm, "--format", "json").stdout)["files"]
    found = {folder["library"]: folder for file in files for folder in file.get("kernel_folders", [])}
    assert [(each["target"], each["files"], each["missing"]) for each in found["rocBLAS"]["targets"]] == [
        ("gfx900", 7, [LACKING]), ("gfx1030", 8, []), ("gfx1100", 8, []),
    ]  # fmt: skip
    assert [each["missing"] for each in found["hipBLASLt"]["targets"]] == [[], [], ["extop_gfx1101.co"]]
    assert "TensileLibrary_Type_SS" in run("inspect", rocm).stdout


def test_in_a_wheel_and_in_an_image(run: Run, rocm: Path, tmp_path: Path) -> None:
    paths = [path for path in sorted(rocm.rglob("*")) if path.is_file()]
    members = [(f"_rocm_sdk_libraries/{path.relative_to(rocm).as_posix()}".encode(), path.read_bytes()) for path in paths]
    wheel = tmp_path / "rocm_sdk_libraries-7.0-py3-none-linux_x86_64.whl"
    wheel.write_bytes(zip_file(members))
    ((_, (outcome, _)),) = rows(run, wheel, "gfx1100").items()
    assert outcome == "runs"
    ((_, (outcome, _)),) = rows(run, wheel, "gfx1036").items()
    assert outcome == "will-not-run"
    entries = [Entry("f", f"opt/rocm/{path.relative_to(rocm).as_posix()}", path.read_bytes()) for path in paths]
    whiteout = layer([Entry("f", "opt/rocm/lib/rocblas/library/.wh.TensileLibrary_lazy_gfx1030.dat")])
    image = as_tar(docker_files([Image([layer(entries), whiteout])]), tmp_path / "a.tar")
    found = rows(run, image, "gfx1030")
    outcome, why = found["rocBLAS kernels in /opt/rocm/lib/rocblas/library"]
    assert outcome == "may-fail-in-part"
    assert "TensileLibrary_lazy_gfx1030.dat" in why


def test_an_index_that_a_gpu_lacks_and_others_have() -> None:
    """TheRock issue 5478: all objects of a GPU are there, and nothing that leads to them."""
    names = [f"hipblaslt/library/{name}" for gfx in ("gfx1100", "gfx1101") for name in (f"Kernels.so-000-{gfx}.hsaco", f"extop_{gfx}.co")]
    (folder,) = kernel_folders([*names, "hipblaslt/library/TensileLibrary_lazy_gfx1101.dat"])
    assert {each.target: each.missing for each in folder.targets} == {"gfx1100": ("TensileLibrary_lazy_gfx1100.dat",), "gfx1101": ()}


def test_types_that_only_some_gpus_have_are_no_gap() -> None:
    """FP8 on gfx942 alone, an index in one file instead of many, features in names."""
    names = ["TensileLibrary_gfx900.dat", "TensileLibrary_gfx900.co", "TensileLibrary_lazy_gfx90a.dat",
             "TensileLibrary_F8_gfx942.dat", "TensileLibrary_F8_gfx942.co", "TensileLibrary_lazy_gfx942.dat",
             "Kernels.so-000-gfx90a-xnack+.hsaco", "Kernels.so-000-gfx90a-xnack-.hsaco", "Kernels.so-000-gfx942.hsaco",
             "Kernels.so-000-gfx900.hsaco"]  # fmt: skip
    (folder,) = kernel_folders(f"rocblas/library/{name}" for name in names)
    assert {each.target: each.missing for each in folder.targets} == {"gfx900": (), "gfx90a": (), "gfx942": ()}
    assert [each.files for each in folder.targets] == [3, 3, 4]


def test_thousands_of_objects_and_few_descriptors(tmp_path: Path) -> None:
    """hipBLASLt has more files for one GPU than a process may have open."""
    folder = hipblaslt(tmp_path, ["gfx942", "gfx1100"])
    for number in range(200):
        for gfx in ("gfx942", "gfx1100"):
            (folder / f"TensileLibrary_T{number}_{gfx}.co").write_bytes(object_for(gfx))
            (folder / f"TensileLibrary_T{number}_{gfx}.dat").write_bytes(DAT)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128));"
        "from fatpatch.commands import main; sys.argv = ['fatpatch', 'doctor', sys.argv[1], '--gpu', 'gfx1100']; main()"
    )
    command = [sys.executable, "-c", program, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stdout.startswith("WILL RUN")) == (0, True), done.stderr


def findings(run: Run, what: Path, *options: str) -> list[tuple[str, str]]:
    document = json.loads(run("check", what, *options, "--format", "json").stdout)
    return [(finding["rule"], finding["message"]) for finding in document["findings"]]


@pytest.mark.parametrize("form", ["folder", "wheel"])
def test_check_holds_a_demand_against_the_folder_once(run: Run, rocm: Path, tmp_path: Path, form: str) -> None:
    """Not against each file, which is for one GPU; what no file is for, and what is incomplete, fails."""
    what = rocm
    if form == "wheel":
        what = tmp_path / "a-1-py3-none-any.whl"
        what.write_bytes(
            zip_file([(path.relative_to(rocm).as_posix().encode(), path.read_bytes()) for path in rocm.rglob("*") if path.is_file()])
        )
    assert findings(run, what, "--require", "gfx1100") == []
    assert findings(run, what, "--gpu", "gfx1100") == []
    lacking = findings(run, what, "--require", "gfx900")
    assert [rule for rule, _ in lacking] == ["FP101", "FP101"]
    assert any("no files for gfx900 of hipBLASLt" in message for _, message in lacking)
    assert any(LACKING in message for _, message in lacking)
    failing = findings(run, what, "--gpu", "gfx1036")
    assert [rule for rule, _ in failing] == ["FP301", "FP301"]
    assert any("rocBLAS ends the program" in message for _, message in failing)
    (blas,) = findings(run, what, "--gpu", "gfx1101", "--gpu", "gfx1100")[:1]
    assert blas[0] == "FP301"


def test_a_file_that_is_named_itself_is_checked_itself(run: Run, rocm: Path) -> None:
    path = rocm / "lib/rocblas/library/Kernels.so-000-gfx1100.hsaco"
    assert findings(run, path, "--require", "gfx1100") == []
    assert [rule for rule, _ in findings(run, path, "--require", "gfx1030")] == ["FP101"]
