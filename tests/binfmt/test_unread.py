"""Containers that are recognised and not read are named: never "no GPU code", and never searched inside."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
import zlib
from pathlib import Path

import lz4.frame
import pytest
import zstandard
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
    "x.lzh": (b"\x20\x5a-lh5-" + bytes(5000) + FATBIN, "LHA archive"),
    "x.arj": (b"\x60\xea\x2c\0\x22" + bytes(5000) + FATBIN, "ARJ archive"),
    "x.nar": (b"\r\0\0\0\0\0\0\0nix-archive-1\0\0\0" + FATBIN, "Nix archive"),
    "ext4.img": (bytes(1080) + b"\x53\xef" + bytes(1000) + FATBIN, "disk image (ext2, ext3 or ext4)"),
    "disk.vhd": (bytes(64) + FATBIN + b"conectix" + bytes(504), "disk image (VHD)"),
    "disk.vhdx": (b"vhdxfile" + FATBIN, "disk image (VHDX)"),
    "disk.img": (bytes(512) + b"EFI PART" + FATBIN, "disk image (GPT)"),
    "x.dmg": (bytes(64) + FATBIN + b"koly\0\0\0\4" + bytes(504), "Apple disk image"),
    "x.erofs": (bytes(1024) + b"\xe2\xe1\xf5\xe0" + FATBIN, "EROFS"),
    "x.age": (b"age-encryption.org/v1\n" + FATBIN, "encrypted file (age)"),
    "constructor.sh": (b"#!/bin/sh\n" + b"echo\n" * 4000 + bytes(40_000) + FATBIN, "self-extracting script"),
    "upx": (elf.shared_object([(".text", bytes(64)), ("UPX1", bytes(range(256)) * 20)]), "program that UPX packed"),
    "nuitka": (elf.shared_object([(".text", bytes(64))]) + b"KAY" + FATBIN, "Nuitka program"),
    "x.exe": (b"<!DOCTYPE html><html>not found</html>", "an HTML page"),
    "x.llamafile": (b"", "an empty file"),
    "x.ptx": (b"<html>not found</html>", "an HTML page"),
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


def test_members_of_every_codec(run: Run, tmp_path: Path) -> None:
    """What a codec packed that is not read is named; LZMA and xz, which have numbers of their own in a zip, are read."""
    library = elf.shared_object([(".nv_fatbin", FATBIN)])
    lzma_alone = lzma.compress(library, lzma.FORMAT_ALONE)
    packed = {
        9: (library[:500], 5),
        98: (library[:500], 5),
        14: (b"\x09\x14\x05\x00" + lzma_alone[:5] + lzma_alone[13:], 0),
        95: (lzma.compress(library), 0),
    }
    for method, (data, code) in packed.items():
        path = tmp_path / f"{method}.zip"
        path.write_bytes(zipped("libx.so", data, method, library))
        for command in ("inspect", "verify"):
            done = run(command, path)
            assert done.returncode == code, (command, method, done.stdout, done.stderr)
        judged = run("doctor", path, "--gpu", "RTX 3060")
        assert judged.stdout.startswith("CANNOT TELL" if code else "WILL RUN"), judged.stdout


def zipped(name: str, data: bytes, method: int, content: bytes) -> bytes:
    """A zip of one member whose packed bytes are given."""
    facts = struct.pack("<HHHIII", method, 0, 0x21, zlib.crc32(content), len(data), len(content)) + struct.pack("<HH", len(name), 0)
    local = b"PK\3\4" + struct.pack("<HH", 63, 0) + facts + name.encode() + data
    central = b"PK\1\2" + struct.pack("<HHH", 63, 63, 0) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    return local + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)


def test_parts_of_a_tar(run: Run, tmp_path: Path) -> None:
    """A type that is not known is a file (POSIX); the rest of a file from another volume and an archive behind the end are named."""
    library = elf.shared_object([(".nv_fatbin", FATBIN)])

    def made(kind: bytes) -> bytes:
        info = tarfile.TarInfo("libx.so")
        info.size, info.type = len(library), kind
        return info.tobuf(tarfile.GNU_FORMAT) + library + bytes(-len(library) % 512)

    empty = tarfile.TarInfo("empty").tobuf(tarfile.GNU_FORMAT) + bytes(10_240)
    cases = {"Z": (made(b"Z"), 0, ""), "M": (made(b"M"), 5, "another volume"), "joined": (empty + made(b"0"), 5, "another archive follows")}
    for name, (data, code, words) in cases.items():
        path = tmp_path / f"{name}.tar"
        path.write_bytes(data + bytes(1024))
        done = run("inspect", path)
        assert (done.returncode, words in done.stderr, "sm_86" in done.stdout) == (code, True, not code), (name, done.stdout, done.stderr)


def test_skippable_frames_come_first(run: Run, tmp_path: Path) -> None:
    """As pzstd writes them."""
    library = elf.shared_object([(".nv_fatbin", FATBIN)])
    frame = struct.pack("<II", 0x184D2A53, 8) + b"for them"
    packed = {"zst": zstandard.ZstdCompressor().compress(library), "lz4": lz4.frame.compress(library)}
    for suffix, data in packed.items():
        path = tmp_path / f"libx.so.{suffix}"
        path.write_bytes(frame + frame + data)
        done = run("inspect", path)
        assert (done.returncode, "sm_86" in done.stdout) == (0, True), (suffix, done.stdout, done.stderr)
