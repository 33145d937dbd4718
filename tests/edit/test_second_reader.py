"""LIEF as the second reader of edited programs, and of Authenticode signatures; osslsigncode signs."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import SAMPLES, required
from edit.elf_builder import fatpatch

from fatpatch.base.source import Source
from fatpatch.binfmt.pe.authenticode import signature_of
from fatpatch.edit.host.second_reader import second_opinion
from fatpatch.edit.host.second_relocations import RelocationTable, RelocationTables, relocation_problems
from fatpatch.model.tree import Node
from fatpatch.scan.walk import walked

PROGRAMS = ("libkernels.so", "donor.dll")


def opinion_on(old: bytes, new: bytes, moves: dict[int, int]) -> str:
    def node(data: bytes) -> Node:
        with walked(Source.of(data), "x", keep_bytes=True) as found:
            return found._replace(source=Source.of(data))

    return second_opinion(node(old), node(new), moves).detail


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_edit_keeps_the_program(name: str, tmp_path: Path) -> None:
    path = shutil.copy(SAMPLES / name, tmp_path / name)
    path.chmod(0o644)
    assert fatpatch("recompress", path, "--codec", "zstd", "--compact", "--in-place").code == 0
    answer = fatpatch("verify", path, "--independent")
    assert answer.code == 0
    assert answer.out.splitlines()[:2] == ["ok      LIEF reads it", "ok      LIEF reads the same program"]


def test_another_program_is_told() -> None:
    """Each with one field of the ELF file changed that an edit has no business with."""
    data = (SAMPLES / "libkernels.so").read_bytes()
    assert opinion_on(data, data, {}) == ""
    (phoff,) = struct.unpack_from("<Q", data, 32)
    headers = [phoff + 56 * index for index in range(struct.unpack_from("<H", data, 56)[0])]
    kinds = {struct.unpack_from("<I", data, at)[0]: at for at in headers}
    (dynamic,) = struct.unpack_from("<Q", data, kinds[2] + 8)
    changes = {
        "header": (24, "<Q", 0x1234),
        "program header": (kinds[0x6474E551] + 4, "<I", 7),  # PT_GNU_STACK: executable
        "dynamic entry": (dynamic + 8, "<Q", 1),
    }
    for word, (at, layout, value) in changes.items():
        changed = bytearray(data)
        struct.pack_into(layout, changed, at, value)
        assert word in opinion_on(data, bytes(changed), {}), word


def test_a_pe_file_with_another_entry_is_told() -> None:
    data = (SAMPLES / "donor.dll").read_bytes()
    changed = bytearray(data)
    at = struct.unpack_from("<I", data, 0x3C)[0] + 24 + 16
    struct.pack_into("<I", changed, at, 0x1010)
    assert opinion_on(data, data, {}) == ""
    assert "header" in opinion_on(data, bytes(changed), {})


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    if not shutil.which("osslsigncode") or not shutil.which("openssl"):
        required("osslsigncode and openssl")
    key, certificate, path = tmp_path / "key.pem", tmp_path / "cert.pem", tmp_path / "signed.dll"
    subject = "/CN=Fat Signer, Inc./O=Somebody"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "9", "-subj", subject],
        check=True,
        capture_output=True,
    )
    command = ["osslsigncode", "sign", "-certs", certificate, "-key", key, "-in", SAMPLES / "donor.dll", "-out", path]
    subprocess.run(command, check=True, capture_output=True)
    return path


def test_who_signed_and_whether_the_digest_holds(signed: Path, tmp_path: Path) -> None:
    found = signature_of(Source.of(signed.read_bytes()))
    assert found is not None
    assert (found.signers, found.holds) == (("Fat Signer, Inc.",), True)
    assert "signed by Fat Signer, Inc.; the digest holds" in fatpatch("inspect", signed).out
    assert fatpatch("verify", signed).code == 0
    data = bytearray(signed.read_bytes())
    data[0x400] ^= 1
    broken = tmp_path / "broken.dll"
    broken.write_bytes(data)
    answer = fatpatch("verify", broken)
    assert answer.code == 1
    assert "FAILED  Authenticode digests right" in answer.out
    assert signature_of(Source.of((SAMPLES / "donor.dll").read_bytes())) is None


def test_an_edit_says_whose_signature_it_would_break(signed: Path, tmp_path: Path) -> None:
    arguments = ("recompress", signed, "--codec", "zstd", "-o", tmp_path / "after.dll")
    answer = fatpatch(*arguments)
    assert answer.code == 6
    assert "signed by Fat Signer, Inc." in answer.err
    assert fatpatch(*arguments, "--drop-signature").code == 0


def test_another_relocation_is_told() -> None:
    """Its kind, its place and its addend; one that leads to a payload has to follow it, and no other may."""
    data = (SAMPLES / "libkernels.so").read_bytes()
    headers = subprocess.run(["readelf", "-SW", SAMPLES / "libkernels.so"], capture_output=True, text=True, check=True).stdout
    row = next(line.split(".rela.dyn")[1].split() for line in headers.splitlines() if " .rela.dyn " in line)
    start = int(row[2], 16)
    (addend,) = struct.unpack_from("<q", data, start + 16)
    for at, layout, value in ((0, "<Q", 0x4242), (8, "<Q", 9), (16, "<q", addend + 8)):
        changed = bytearray(data)
        struct.pack_into(layout, changed, start + at, value)
        assert "the relocation of" in opinion_on(data, bytes(changed), {}), at


def test_packed_relocations_follow() -> None:
    """RELR: places in a word and in a bitmap."""

    def tables(pointers: list[int]) -> RelocationTables:
        data = struct.pack("<4Q", 64, 0b1011, 0, 0) + bytes(32) + struct.pack("<4Q", *pointers)
        return RelocationTables(Source.of(data), {"RELR": RelocationTable(0, 16, "packed")}, lambda address: address)

    old = tables([0x1000, 0x2000, 7, 0x3000])
    assert list(relocation_problems(old, tables([0x1000, 0x2000, 9, 0x3000]), {})) == []  # a word that nothing relocates
    assert list(relocation_problems(old, tables([0x1000, 0x9000, 7, 0x3000]), {0x2000: 0x9000})) == []
    assert len(list(relocation_problems(old, old, {0x2000: 0x9000}))) == 1
    assert len(list(relocation_problems(old, tables([0x1000, 0x2000, 7, 0x3008]), {}))) == 1
    assert len(list(relocation_problems(old, tables([0x1008, 0x2000, 7, 0x3000]), {}))) == 1
