"""Which evidence finds a fatbin, and what is no fatbin."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from builders import bundle, elf, pe
from builders.fatbin import PTX, container, entry

from fatpatch.model.tree import Node
from fatpatch.scan.walk import inspected

FATBIN = container(entry(PTX))


def read(tmp_path: Path, data: bytes, name: str = "x.so") -> Node:
    path = tmp_path / name
    path.write_bytes(data)
    with inspected(str(path)) as node:
        return node


def evidence(node: Node) -> list[tuple[str | None, tuple[str, ...]]]:
    return [(payload.section, payload.found_by) for payload in node.payloads]


def with_wrapper(section: str, *, headers: bool = True, version: int = 1) -> bytes:
    """An ELF whose wrapper points to the fatbin in ``section``."""
    draft = elf.shared_object([(section, FATBIN), (".nvFatBinSegment", elf.wrapper(0))], headers=headers)
    address = 0x10000 + draft.index(FATBIN)
    return elf.shared_object([(section, FATBIN), (".nvFatBinSegment", elf.wrapper(address, version))], headers=headers)


def test_by_section_and_wrapper(tmp_path: Path) -> None:
    node = read(tmp_path, with_wrapper(".nv_fatbin"))
    assert evidence(node) == [(".nv_fatbin", ("section", "wrapper"))]
    assert node.payloads[0].wrapper.version == 1
    assert node.detail == "x86-64 shared object"


@pytest.mark.parametrize("section", [".rodata", ".ldata", ".cask_resource", "anything"])
def test_in_other_sections_by_magic(tmp_path: Path, section: str) -> None:
    node = read(tmp_path, elf.shared_object([(section, b"\1" * 24 + FATBIN + bytes(8) + FATBIN + b"tail")]))
    assert evidence(node) == [(section, ("magic",))] * 2


def test_by_wrapper_alone(tmp_path: Path) -> None:
    """A fatbin that fails the strict test of the search is found when a wrapper names it."""
    odd = bytearray(FATBIN)
    odd[4] = 2
    draft = elf.shared_object([(".rodata", bytes(odd)), (".nvFatBinSegment", elf.wrapper(0))])
    address = 0x10000 + draft.index(bytes(odd))
    node = read(tmp_path, elf.shared_object([(".rodata", bytes(odd)), (".nvFatBinSegment", elf.wrapper(address))]))
    assert evidence(node) == [(".rodata", ("wrapper",))]


def test_unaligned_fatbin(tmp_path: Path) -> None:
    node = read(tmp_path, elf.shared_object([(".rodata", b"abc" + FATBIN)]))
    assert evidence(node) == [(".rodata", ("magic",))]


def test_without_section_headers(tmp_path: Path) -> None:
    node = read(tmp_path, with_wrapper(".nv_fatbin", headers=False))
    assert evidence(node) == [(None, ("magic", "wrapper"))]
    assert node.detail.endswith("no section headers")


def test_aarch64(tmp_path: Path) -> None:
    assert read(tmp_path, elf.shared_object([(".nv_fatbin", FATBIN)], machine=183)).detail == "aarch64 shared object"


def test_wrapper_that_points_nowhere(tmp_path: Path) -> None:
    node = read(tmp_path, elf.shared_object([(".nv_fatbin", FATBIN), (".nvFatBinSegment", elf.wrapper(0x10000))]))
    assert [item.field for item in node.diagnostics] == ["fatbin pointer"]
    assert len(node.payloads) == 1


def test_magic_that_is_no_fatbin(tmp_path: Path) -> None:
    """As in triton's and libtriton's code: the bare magic as a constant, or with a header that does not hold."""
    magic = b"\x50\xed\x55\xba"
    junk = magic + b"\x48\x89" + bytes(26) + FATBIN[:16] + b"\xff" * 64 + magic + struct.pack("<HHQ", 1, 16, 1 << 40) + bytes(64)
    node = read(tmp_path, elf.shared_object([(".rodata", junk)]))
    assert not node.payloads
    assert not node.diagnostics


def test_bundle_magic_as_a_string(tmp_path: Path) -> None:
    node = read(tmp_path, b"\x7fELF" + bytes(60) + b"__CLANG_OFFLOAD_BUNDLE__sycl-spir64\0CCOB" + bytes(100))
    assert not node.payloads


def test_raw_bytes_are_carved(tmp_path: Path) -> None:
    node = read(tmp_path, b"\xde\xad" * 33 + FATBIN + b"\1\2\3" + bundle.plain([("gfx1030", bundle.code_object())]), "x.bin")
    assert node.container == "raw"
    assert [(payload.kind, payload.found_by) for payload in node.payloads] == [("fatbin", ("magic",)), ("offload_bundle", ("magic",))]


def test_pe_sections_with_cut_names(tmp_path: Path) -> None:
    wrapper = elf.wrapper(0x180000000 + 0x1000)
    node = read(tmp_path, pe.dll([(b".nv_fatb", FATBIN + bytes(8) + FATBIN), (b".nvFatBi", wrapper), (b"__nv_rel", FATBIN)]), "x.dll")
    assert node.container == "pe"
    assert evidence(node) == [(".nv_fatb", ("section", "wrapper")), (".nv_fatb", ("section",)), ("__nv_rel", ("section",))]


def test_coff_object_with_long_names(tmp_path: Path) -> None:
    node = read(tmp_path, pe.coff_object([(".nv_fatbin", FATBIN), (".text", b"\x90")]), "x.obj")
    assert evidence(node) == [(".nv_fatbin", ("section",))]


def test_locators_are_numbered_by_section(tmp_path: Path) -> None:
    node = read(tmp_path, elf.shared_object([(".nv_fatbin", FATBIN * 2), ("__nv_relfatbin", FATBIN)]))
    assert [payload.locator for payload in node.payloads] == [
        "x.so!.nv_fatbin!fatbin[0]",
        "x.so!.nv_fatbin!fatbin[1]",
        "x.so!__nv_relfatbin!fatbin[0]",
    ]
