"""Archives: members in place, packed members, limits, hostile directories."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard
from builders import archive, elf
from builders.fatbin import PTX, container, entry

from fatpatch.base.limits import Limits
from fatpatch.model.tree import Node
from fatpatch.scan.walk import inspected

SO = elf.shared_object([(".nv_fatbin", container(entry(PTX)))])


def read(tmp_path: Path, data: bytes, name: str = "x.zip", limits: Limits | None = None) -> Node:
    path = tmp_path / name
    path.write_bytes(data)
    with inspected(str(path), limits=limits) as node:
        return node


def found(node: Node) -> list[str]:
    return [payload.locator for member in node.members for payload in member.payloads]


WITHIN = ["x.zip!lib/a.so!.nv_fatbin!fatbin[0]"]


@pytest.mark.parametrize("method", [0, 8])
@pytest.mark.parametrize("zip64", [False, True])
def test_zip(tmp_path: Path, method: int, zip64: bool) -> None:
    node = read(tmp_path, archive.zip_file([(b"README", b"text"), (b"lib/a.so", SO)], method=method, zip64=zip64))
    assert (node.container, node.member_count) == ("zip", 2)
    assert found(node) == WITHIN
    assert (node.members[0].stored_at is None) == (method == 8)
    assert node.members[0].payloads[0].offset == SO.index(container(entry(PTX)))


def test_zip_behind_a_prefix(tmp_path: Path) -> None:
    """Offsets counted from the file's start, as in an APE, and from the archive's start, as a self-extractor has them."""
    prefix = b"#!/bin/sh\nexit\n\0" * 10
    for shift in (0, len(prefix)):
        node = read(tmp_path, archive.zip_file([(b"lib/a.so", SO)], prefix=prefix, shift=shift))
        assert node.container == "raw"
        assert found(node) == WITHIN


def test_zip_tail_of_an_elf(tmp_path: Path) -> None:
    node = read(tmp_path, archive.zip_file([(b"lib/a.so", SO)], prefix=elf.shared_object([(".data", b"x" * 64)])))
    assert node.container == "elf"
    assert found(node) == WITHIN


def test_overlapping_and_duplicate_members(tmp_path: Path) -> None:
    data = bytearray(archive.zip_file([(b"a.so", SO), (b"b.so", SO)]))
    second = data.rindex(b"PK\1\2")
    data[second + 42 : second + 46] = bytes(4)
    node = read(tmp_path, bytes(data))
    assert found(node) == ["x.zip!a.so!.nv_fatbin!fatbin[0]"] or len(node.members) == 1
    assert [item.field for item in node.diagnostics] == ["local header offset"]
    twice = read(tmp_path, archive.zip_file([(b"a.so", SO), (b"a.so", SO)]))
    assert [member.locator for member in twice.members] == ["x.zip!a.so", "x.zip!a.so#2"]


def test_encrypted_member_is_said(tmp_path: Path) -> None:
    node = read(tmp_path, archive.zip_file([(b"a.so", SO)], flags=1))
    assert "encrypted" in node.diagnostics[0].message


@pytest.mark.parametrize("bsd", [False, True])
def test_ar(tmp_path: Path, bsd: bool) -> None:
    node = read(tmp_path, archive.ar_file([("a_rather_long_name.o", SO), ("b.o", SO + b"x")], bsd=bsd), "x.a")
    assert node.container == "ar"
    assert [member.path for member in node.members] == ["a_rather_long_name.o", "b.o"]
    assert len(found(node)) == 2


@pytest.mark.parametrize("style", ["plain", "gnu_long", "pax"])
@pytest.mark.parametrize("codec", ["none", "gzip", "xz", "bzip2", "zstd"])
def test_tar(tmp_path: Path, style: str, codec: str) -> None:
    pack = {"none": bytes, "gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress, "zstd": zstandard.compress}[codec]
    data = archive.tar_file([("package/lib/a.so", SO)], **({} if style == "plain" else {style: True}))
    node = read(tmp_path, pack(data), "x.tar")
    assert (node.container, node.packing) == ("tar", None if codec == "none" else codec)
    assert [member.path for member in node.members] == ["package/lib/a.so"]
    assert len(found(node)) == 1


def test_conda_nesting(tmp_path: Path) -> None:
    inner = zstandard.compress(archive.tar_file([("lib/a.so", SO)]))
    node = read(tmp_path, archive.zip_file([(b"metadata.json", b"{}"), (b"pkg-x.tar.zst", inner)]), "x.conda")
    assert node.members[0].members[0].payloads[0].locator == "x.conda!pkg-x.tar.zst!lib/a.so!.nv_fatbin!fatbin[0]"


def test_nesting_is_limited(tmp_path: Path) -> None:
    data = SO
    for _ in range(12):
        data = archive.zip_file([(b"inner.zip", data)], method=8)
    node = read(tmp_path, data)
    depth = 0
    while node.members:
        node, depth = node.members[0], depth + 1
    assert depth == Limits().depth
    assert "nested deeper" in node.diagnostics[-1].message


def test_bombs_are_refused(tmp_path: Path) -> None:
    limits = Limits(ratio_free=1 << 20)
    zeros = bytes(8 << 20)
    node = read(tmp_path, archive.zip_file([(b"a.bin", zeros), (b"lib/a.so", SO)], method=8), limits=limits)
    assert "bomb" in node.diagnostics[0].message
    assert found(node) == WITHIN
    packed = read(tmp_path, gzip.compress(zeros), "x.gz", limits)
    assert "bomb" in packed.diagnostics[0].message


def test_member_count_is_limited(tmp_path: Path) -> None:
    node = read(tmp_path, archive.zip_file([(b"%d.so" % index, SO) for index in range(20)]), limits=Limits(members=5))
    assert len(node.members) == 5
    assert "more than 5 members" in node.diagnostics[-1].message


def test_damaged_member_does_not_hide_the_next(tmp_path: Path) -> None:
    data = bytearray(archive.zip_file([(b"a.so", SO), (b"lib/a.so", SO)], method=8))
    data[60:80] = b"\xff" * 20
    node = read(tmp_path, bytes(data))
    assert found(node) == WITHIN
    assert [item.locator for item in node.diagnostics] == ["x.zip!a.so"]


def test_hostile_names_are_escaped(tmp_path: Path) -> None:
    names = [b"../../up.so", b"/abs.so", b"a\x1b[31m\n.so", b"x" * 60000, b"a!b%.so", b"C:\\w.so"]
    node = read(tmp_path, archive.zip_file([(name, SO) for name in names]))
    locators = [member.locator for member in node.members]
    assert len(locators) == len(names)
    assert all(locator.isprintable() and len(locator) < 300 for locator in locators)
    assert locators[4] == "x.zip!a%21b%25.so"


def test_truncation_at_every_byte(tmp_path: Path) -> None:
    data = archive.zip_file([(b"a.ptx", PTX[:-1])], zip64=True)
    for size in range(len(data)):
        read(tmp_path, data[:size])
