"""Many libraries with long names in one archive: 80 columns, one screen, and what all names share is said once (trial.md, kind 10)."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry
from conftest import SAMPLES, Run

FOLDER = "project/_internal/backends/cuda/"
OLD = "project_with_a_long_name-1.0.0-cp311-cp311-manylinux_2_28_x86_64.whl"
NEW = OLD.replace("1.0.0", "1.1.0")
LIBRARIES = 14


def library(number: int, archs: tuple[int, ...], kernels: int = 40) -> bytes:
    names = tuple(
        f"_ZN7project10family{number:04}31very_long_kernel_name_for_a_testILi{value}ELi128ELb0EfEEvPKfS2_Pfiii" for value in range(kernels)
    )
    entries = [entry(cubin(arch=arch, kernels=names), kind=2, major=1, minor=7, arch=arch) for arch in archs]
    return elf.shared_object([(".nv_fatbin", container(*entries))])


def write_wheel(path: Path, archs: tuple[int, ...], kernels: int) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(LIBRARIES):
            archive.writestr(f"{FOLDER}libproject_backend_number_{number:02}.so", library(number, archs, kernels))


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder / OLD, (70, 80, 90), 40)
    write_wheel(folder / NEW, (80, 90, 120), 43)
    (folder / "donor.so").write_bytes(library(3, (61,)).replace(b"very_long", b"othr_long"))
    return folder


def fits(text: str, lines: int) -> None:
    """No line is wider than 80 columns but those with the name that the user gave; ``lines`` at most."""
    rows = text.splitlines()
    assert len(rows) <= lines
    assert [row for row in rows if len(row) > 80 and "project_with_a_long_name" not in row] == []
    assert text.count(FOLDER) <= 2


def test_inspect_has_one_row_a_library(run: Run, wheels: Path) -> None:
    done = run("inspect", OLD, cwd=wheels)
    assert done.returncode == 0
    fits(done.stdout, 24)
    assert all(f"libproject_backend_number_{number:02}.so\n" in done.stdout for number in range(LIBRARIES))
    assert "14 places with sm_70, sm_80, sm_90\n  no PTX" in done.stdout
    assert done.stdout.count("project_with_a_long_name") <= 2
    verbose = run("inspect", OLD, "-v", cwd=wheels).stdout
    assert verbose.count("  sm_70 ") >= LIBRARIES


def test_check_says_once_what_holds_for_all(run: Run, wheels: Path) -> None:
    done = run("check", OLD, "--require", "sm_61", cwd=wheels)
    assert done.returncode == 1
    fits(done.stdout, 12)
    assert "and 11 more\n    no image for sm_61; it holds sm_70, sm_80, sm_90\n    do: compile with" in done.stdout
    assert "14 errors" in done.stdout
    assert run("check", OLD, "--require", "sm_61", "-v", cwd=wheels).stdout.count("libproject_backend") == LIBRARIES


def test_diff_is_a_summary_first(run: Run, wheels: Path) -> None:
    done = run("diff", OLD, NEW, cwd=wheels)
    assert done.returncode == 1
    fits(done.stdout, 24)
    assert "14 of 14 files with GPU code differ" in done.stdout
    assert "removed sm_70; added sm_120" in " ".join(done.stdout.split())
    assert len(run("diff", OLD, NEW, "-v", cwd=wheels).stdout.splitlines()) > 100
    assert len(run("diff", OLD, NEW, "--format", "markdown", cwd=wheels).stdout.splitlines()) < 60


@pytest.mark.parametrize("count", [2, 3, 5])
def test_several_files_on_one_gpu(run: Run, wheels: Path, count: int) -> None:
    done = run("doctor", *[OLD, NEW, OLD, NEW, OLD][:count], "--gpu", "GTX 1060", cwd=wheels)
    assert done.returncode == 1
    fits(done.stdout, 32)
    assert done.stdout.count("WILL NOT RUN") == count


def test_doctor_of_one(run: Run, wheels: Path) -> None:
    fits(run("doctor", OLD, "--gpu", "GTX 1060", cwd=wheels).stdout, 40)


def test_a_refusal_is_short(run: Run, wheels: Path) -> None:
    done = run("graft", OLD, "--from", "donor.so", "--target", "sm_61", "-o", "x.whl", cwd=wheels)
    assert done.returncode == 6
    assert len(done.stderr.splitlines()) <= 3
    assert len(done.stderr) < 600
    assert "_ZN" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_kernel_names_are_shortened_on_a_terminal_only(run: Run) -> None:
    import fcntl
    import os
    import pty
    import struct
    import termios

    command = ["inspect", str(SAMPLES / "libkernels.so"), "--kernels", "--target", "sm_61"]
    whole = run(*command).stdout
    assert "void gather<double>(double*, double const*, Big, unsigned char, double)" in whole
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    environ = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    done = subprocess.Popen([sys.executable, "-m", "fatpatch", *command], stdout=theirs, stderr=subprocess.DEVNULL, env=environ)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert done.wait() == 0
    rows = [line.rstrip() for line in shown.decode().splitlines() if "gather<" in line]
    assert len(rows) == 2
    assert all(len(row) <= 60 and "..." in row and row.endswith("double)") for row in rows)
