"""Code objects of hundreds of megabytes, as rocBLAS has them for one GPU: read by their tables, without loading all."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Run

SYMBOL = struct.Struct("<IBBHQQ")
GFX1030 = 0x36
FUNCTION, LABEL, OBJECT = 0x12, 0, 0x11


def object_file(path: Path, code: int, kernels: int, labels: int, *, mach: int = GFX1030, cut: int = 0) -> Path:
    """A code object with ``code`` bytes of code, of which the file is a hole; kernel k<n> has 64 bytes; ``cut`` bytes are missing."""
    names, table = bytearray(b"\0"), bytearray(SYMBOL.size)
    text_at, address = 64, 0x1000

    def symbol(name: str, info: int, section: int, value: int, size: int) -> None:
        table.extend(SYMBOL.pack(len(names), info, 3, section, value, size))
        names.extend(name.encode() + b"\0")

    for number in range(labels):
        symbol(f"label_{number}", LABEL, 1, address + number % code, 0)
    for number in range(kernels):
        symbol(f"k{number}", FUNCTION, 1, address + 64 * number, 64)
        symbol(f"k{number}.kd", OBJECT, 1, address + 64 * number, 64)
    titles = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"
    at = text_at + code
    rows = [bytes(64), struct.pack("<IIQQQQIIQQ", 1, 1, 6, address, text_at, code, 0, 0, 256, 0)]
    for name, kind, data, link in ((7, 2, table, 3), (15, 3, names, 0), (23, 3, titles, 0)):
        rows.append(struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, at, len(data), link, 0, 8, 24 if kind == 2 else 0))
        at += len(data)
    ident = b"\x7fELF\x02\x01\x01\x40\x04" + bytes(7)
    with path.open("wb") as sink:
        sink.write(struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 224, 1, 0, 0, at, mach, 64, 56, 0, 64, len(rows), 4))
        sink.seek(text_at + code)
        sink.write(bytes(table) + bytes(names) + titles + b"".join(rows))
        sink.truncate(sink.tell() - cut)
    return path


LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "fatpatch", *sys.argv[1:]])
_, status, usage = os.wait4(child.pid, 0)
sys.stderr.write(f" {usage.ru_maxrss // 1024}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def measured(*arguments: object) -> tuple[int, int, str]:
    """(exit code, peak memory in MB, output)."""
    command = [sys.executable, "-c", LAUNCHER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)})
    return done.returncode, int(done.stderr.split()[-1]), done.stdout


def test_223_megabytes_with_many_labels(tmp_path: Path) -> None:
    path = object_file(tmp_path / "TensileLibrary_gfx1030.co", 223 << 20, 500, 100_000)
    code, peak, text = measured("inspect", path, "--kernels", "--format", "json")
    assert code == 0
    (image,) = json.loads(text)["files"][0]["payloads"][0]["images"]
    assert (image["target"], len(image["kernels"])) == ("gfx1030", 500)
    assert {kernel["name"] for kernel in image["kernels"]} == {f"k{number}" for number in range(500)}
    assert {kernel["code_size"] for kernel in image["kernels"]} == {64}
    assert peak < 150


def test_readelf_sees_the_same_kernels(tmp_path: Path, run: Run) -> None:
    readelf = subprocess.run(["readelf", "--version"], capture_output=True, check=False)
    if readelf.returncode:
        pytest.skip("readelf: apt-get install binutils")
    path = object_file(tmp_path / "a.co", 20 << 20, 30, 40)
    text = subprocess.run(["readelf", "-sW", path], capture_output=True, text=True, check=True).stdout
    names = {line.split()[7][:-3] for line in text.splitlines() if line.endswith(".kd")}
    document = json.loads(run("inspect", path, "--kernels", "--format", "json").stdout)
    assert {kernel["name"] for kernel in document["files"][0]["payloads"][0]["images"][0]["kernels"]} == names


def test_doctor_and_verify_above_the_limit(tmp_path: Path, run: Run) -> None:
    """A limit on what is unpacked is none on what is not loaded."""
    path = object_file(tmp_path / "a.co", 223 << 20, 3, 0)
    code, peak, text = measured("doctor", path, "--gpu", "gfx1030", "--max-image-size", "128M")
    assert (code, text.startswith("WILL RUN")) == (0, True)
    assert peak < 150
    assert run("doctor", path, "--gpu", "gfx1100").stdout.startswith("WILL NOT RUN")
    assert run("verify", path).returncode == 0


@pytest.mark.parametrize("cut", [1, 64, 4000])
def test_a_large_object_that_is_cut_off(tmp_path: Path, run: Run, cut: int) -> None:
    path = object_file(tmp_path / "a.co", 20 << 20, 3, 100, cut=cut)
    assert run("verify", path).returncode == 1
    assert not run("doctor", path, "--gpu", "gfx1030").stdout.startswith("WILL RUN")


def test_tables_without_end(tmp_path: Path, run: Run) -> None:
    """A string table that is said to have most of a huge hole is not read into memory."""
    path = object_file(tmp_path / "a.co", 8 << 30, 3, 0)
    with path.open("r+b") as file:
        file.seek(40)
        at = struct.unpack("<Q", file.read(8))[0]
        file.seek(at + 3 * 64 + 24)
        file.write(struct.pack("<QQ", 64, 8 << 30))
    code, peak, _ = measured("inspect", path, "--kernels")
    assert code in (0, 4)
    assert peak < 150


@pytest.mark.slow
def test_as_many_symbols_as_rocblas_has(tmp_path: Path) -> None:
    """708,335, most of them labels."""
    path = object_file(tmp_path / "a.co", 223 << 20, 12_000, 684_335)
    code, peak, _ = measured("inspect", path, "--kernels")
    assert code == 0
    assert peak < 400
    print(f"708,335 symbols: {peak} MB")
