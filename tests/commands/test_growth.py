"""Time grows with what there is to read, and no faster: CPU seconds of whole runs over files that are eight times as large.

The figures are in ``tests/RESULTS.md``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from itertools import accumulate
from pathlib import Path

import pytest
from builders.cubin import cubin
from builders.fatbin import container, entry, packed
from conftest import SAMPLES

FACTOR = 8
SLACK = 1.7
"""How much more than FACTOR times the CPU time is noise."""
FLOOR = 0.1
"""CPU seconds that every run takes."""


def text(arch: int, number: int) -> bytes:
    head = f".version 8.4\n.target sm_{arch}\n.address_size 64\n"
    return f"{head}.visible .entry k{number}(.param .u64 p)\n{{\nst.global.u32 [%rd1], {number};\nret;\n}}\n\0".encode()


def modules(count: int) -> list[bytes]:
    """Each a cubin and a PTX text of its own."""
    image = cubin(arch=86)
    made = (container(entry(image, kind=2, arch=86), packed(text(80, number), "zstd", arch=80)) for number in range(count))
    return [module + bytes(-len(module) % 8) for module in made]


def one_module(count: int) -> bytes:
    return container(*[packed(text(50 + number % 40, number), "zstd", arch=50 + number % 40) for number in range(count)])


def library(path: Path, count: int, relocations: int) -> Path:
    """A shared object with registered modules and relative relocations."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    made = modules(count)
    (path.with_suffix(".bin")).write_bytes(b"".join(made))
    starts = [0, *accumulate(map(len, made))][:-1]
    wrappers = "".join(f".long 0x466243b1, 1\n.quad modules + {start}\n.quad 0\n" for start in starts)
    source = f"""
.section .nv_fatbin, "a", @progbits
.p2align 4
modules: .incbin "{path.with_suffix(".bin")}"
.section .nvFatBinSegment, "aw", @progbits
.p2align 3
{wrappers}
.data
.p2align 3
words: .rept {relocations}
.quad words + 8
.endr
"""
    path.with_suffix(".s").write_text(source)
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", str(path), str(path.with_suffix(".s"))], check=True)
    return path


def cost(*command: object) -> tuple[float, float]:
    """CPU seconds and the most MiB of one process, of a run that reads what it is given."""
    code = "import os, sys; p = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, '-m', 'fatpatch', *sys.argv[1:]]); "
    code += "_, s, u = os.wait4(p, 0); print(os.waitstatus_to_exitcode(s), u.ru_utime + u.ru_stime, u.ru_maxrss / 1024, file=sys.stderr)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, check=True, env=environment)
    status, seconds, memory = done.stderr.split()[-3:]
    assert status in ("0", "1"), done.stderr
    return float(seconds), float(memory)


def grows_with(few: tuple[float, float], many: tuple[float, float], most: float) -> None:
    print(f"{few[0]:.2f} s, {few[1]:.0f} MiB -> {many[0]:.2f} s, {many[1]:.0f} MiB")
    assert many[0] <= max(few[0], FLOOR) * FACTOR * SLACK
    assert many[1] <= most


COMMANDS = {
    "list": ("inspect", 100),
    "kernels": ("inspect --kernels", 100),
    "doctor": ("doctor --gpu sm_86", 100),
    "all GPUs": ("doctor --gpu all", 100),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_modules(name: str, tmp_path: Path) -> None:
    command, most = COMMANDS[name]
    few, many = tmp_path / "few.bin", tmp_path / "many.bin"
    few.write_bytes(b"".join(modules(1250)))
    many.write_bytes(b"".join(modules(1250 * FACTOR)))
    grows_with(cost(*command.split(), few), cost(*command.split(), many), most)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_images_of_one_module(name: str, tmp_path: Path) -> None:
    command, _ = COMMANDS[name]
    few, many = tmp_path / "few.bin", tmp_path / "many.bin"
    few.write_bytes(one_module(2500))
    many.write_bytes(one_module(2500 * FACTOR))
    grows_with(cost(*command.split(), few), cost(*command.split(), many), 100)


@pytest.mark.slow
def test_cubins_of_a_wheel(tmp_path: Path) -> None:
    """Half of them for another GPU: the report has a row for each of several libraries."""
    found = []
    for count in (500, 500 * FACTOR):
        wheel = tmp_path / f"some-{count}-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(count):
                archive.writestr(f"some/{number:05}.cubin", cubin(arch=80 if number % 2 else 90, kernels=(f"k{number}",)))
        found.append(cost("doctor", wheel, "--gpu", "sm_86"))
    grows_with(found[0], found[1], 100)


@pytest.mark.slow
def test_files_of_an_audit(tmp_path: Path) -> None:
    data = (SAMPLES / "kernels.sm_61.cubin").read_bytes()
    found = []
    for count in (250, 250 * FACTOR):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number:05}.cubin").write_bytes(data + number.to_bytes(4, "little"))
        found.append(cost("audit", folder, "--jobs", 1, "--db", tmp_path / f"{count}.sqlite"))
    grows_with(found[0], found[1], 100)


@pytest.mark.slow
def test_a_library_with_a_million_relocations_and_five_thousand_modules(tmp_path: Path) -> None:
    few = library(tmp_path / "few.so", 5000 // FACTOR, 1_000_000 // FACTOR)
    many = library(tmp_path / "many.so", 5000, 1_000_000)
    for command in ("inspect", "doctor --gpu sm_86"):
        grows_with(cost(*command.split(), few), cost(*command.split(), many), 100)
    edits = [cost("prune", path, "--drop", "sm_86", "--compact", "-o", path.with_suffix(".out")) for path in (few, many)]
    grows_with(edits[0], edits[1], 1000)  # LIEF, the second reader of an edit, holds every relocation as an object
    grows_with(*[cost("verify", path.with_suffix(".out")) for path in (few, many)], 100)
