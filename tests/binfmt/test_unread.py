"""Containers that are recognised and not read are named: never "no GPU code", and never searched inside."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry
from conftest import Run

FATBIN = container(entry(cubin(arch=86), kind=2, arch=86))
FILES = {
    "x.7z": (b"7z\xbc\xaf\x27\x1c" + FATBIN, "7z archive"),
    "x.rpm": (b"\xed\xab\xee\xdb" + FATBIN, "RPM package"),
    "x.squashfs": (b"hsqs" + bytes(92) + FATBIN, "squashfs file system"),
    "x.rar": (b"Rar!\x1a\x07" + FATBIN, "RAR archive"),
    "x.msi": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + FATBIN, "MSI"),
    "x.cab": (b"MSCF\0\0\0\0" + FATBIN, "cabinet archive"),
    "x.asar": (b"\4\0\0\0" + bytes(12) + b'{"files":{}}' + FATBIN, "asar"),
    "installer.exe": (elf.shared_object([(".text", bytes(64))]) + bytes(32) + b"\xef\xbe\xad\xdeNullsoftInst" + FATBIN, "NSIS"),
    "x.whl": (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
    "x.so": (b"", "an empty file"),
    "y.so": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    "x.dll": (bytes(range(256)) * 16, "of no known kind"),
}


@pytest.mark.parametrize("name", FILES)
def test_named_and_not_searched(name: str, run: Run, tmp_path: Path) -> None:
    data, words = FILES[name]
    path = tmp_path / name
    path.write_bytes(data)
    shown = run("inspect", path)
    assert (shown.returncode, words in shown.stdout + shown.stderr) == (5, True), (shown.stdout, shown.stderr)
    assert "sm_86" not in shown.stdout
    judged = run("doctor", path, "--gpu", "RTX 3060")
    assert (judged.returncode, judged.stdout.startswith("CANNOT TELL")) == (1, True), judged.stdout
    checked = run("check", tmp_path, "--gpu", "RTX 3060")
    assert (checked.returncode, "FP003" in checked.stdout) == (1, True), checked.stdout
    assert run("verify", path).returncode == 5


def test_what_is_read_is_not_named(run: Run, tmp_path: Path) -> None:
    library = elf.shared_object([(".nv_fatbin", FATBIN)])
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("libx.so")
        member.size = len(library)
        archive.addfile(member, io.BytesIO(library))
    (tmp_path / "libx.so.xz").write_bytes(lzma.compress(library))
    (tmp_path / "libx.so").write_bytes(library)
    for path in tmp_path.iterdir():
        shown = run("inspect", path)
        assert (shown.returncode, "sm_86" in shown.stdout) == (0, True), shown.stderr
