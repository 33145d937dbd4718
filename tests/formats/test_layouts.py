"""Every layout against an independent builder, and every hot reader's struct against its layout."""

from __future__ import annotations

import struct
from importlib import import_module
from pathlib import Path

import pytest
from builders import archive, bundle, cubin, fatbin, gguf
from builders import elf as elf_builder
from builders import pe as pe_builder
from builders.layouts import build_layout, parse_layout

from fatpatch.base.errors import FormatError
from fatpatch.binfmt.elf import elf64
from fatpatch.binfmt.pe import tables as pe_tables
from fatpatch.binfmt.zip import read as zip_reader
from fatpatch.formats import cubin as cubin_format
from fatpatch.formats import elf, kpack, nvinfo, offload_binary, offload_bundle, pe, tar, wrapper
from fatpatch.formats import fatbin as fatbin_format
from fatpatch.formats import gguf as gguf_format
from fatpatch.formats import zip as zip_format
from fatpatch.formats.names import FORMATS
from fatpatch.gpucode import kpack as kpack_reader
from fatpatch.gpucode.bundle import offload_binary as offload_binary_reader
from fatpatch.gpucode.bundle import read as bundle_reader
from fatpatch.gpucode.cubin import kernels as cubin_kernels
from fatpatch.gpucode.fatbin import entry as entry_reader
from fatpatch.gpucode.fatbin import read as fatbin_reader
from fatpatch.gpucode.fatbin import wrapper as wrapper_reader

BUILDERS = {
    "fatbin": fatbin.container,
    "wrapper": elf_builder.wrapper,
    "cubin": cubin.cubin,
    "nvinfo": cubin.cubin,
    "ptx": fatbin.PTX,
    "offload_bundle": bundle.plain,
    "offload_binary": bundle.offload_binary,
    "kpack": bundle.kpack,
    "code_object": bundle.code_object,
    "elf": elf_builder.shared_object,
    "pe": pe_builder.dll,
    "ape": archive.ape,
    "zip": archive.zip_file,
    "ar": archive.ar_file,
    "tar": archive.tar_file,
    "gguf": gguf.model,
}

HOT = [
    (fatbin_reader.CONTAINER, fatbin_format.CONTAINER_HEADER),
    (entry_reader.HEADER, fatbin_format.ENTRY_HEADER),
    (entry_reader.HEADER, fatbin_format.SUB_HEADER),
    (wrapper_reader.LAYOUT, wrapper.WRAPPER),
    (offload_binary_reader.HEADER, offload_binary.HEADER),
    (offload_binary_reader.ENTRY, offload_binary.ENTRY),
    (offload_binary_reader.STRING, offload_binary.STRING),
    (kpack_reader.HEADER, kpack.HEADER),
    (elf64.HEADER, elf.HEADER),
    (elf64.SECTION, elf.SECTION),
    (elf64.SEGMENT, elf.SEGMENT),
    (elf64.SYMBOL, elf.SYMBOL),
    (pe_tables.FILE_HEADER, pe.FILE_HEADER),
    (pe_tables.SECTION, pe.SECTION),
    (zip_reader.END, zip_format.END),
    (zip_reader.END64, zip_format.END64),
    (zip_reader.LOCATOR64, zip_format.LOCATOR64),
    (cubin_kernels._PARAMETER, nvinfo.PARAMETER),
    (cubin_kernels._PARAMETER_V2, nvinfo.PARAMETER_V2),
    (cubin_kernels._PAIR, nvinfo.SYMBOL_VALUE),
    (cubin_kernels._DIM, nvinfo.DIMENSIONS),
]


@pytest.mark.parametrize(("hot", "layout"), HOT, ids=lambda value: getattr(value, "format", "layout"))
def test_hot_struct_equals_layout(hot: struct.Struct, layout: object) -> None:
    """Each field of the precompiled struct lies where the declaration puts it."""
    assert hot.size == layout.sizeof()
    at, sizes = 0, []
    for part in layout.subcons:
        sizes.append((at, part.sizeof()))
        at += part.sizeof()
    found, at = [], 0
    for code in _codes(hot.format):
        size = struct.calcsize("<" + code)
        found.append((at, size))
        at += size
    assert found == sizes


def _codes(text: str) -> list[str]:
    codes, number = [], ""
    for char in text.lstrip("<"):
        if char.isdigit():
            number += char
        elif char == "s":
            codes.append(f"{number}s")
            number = ""
        else:
            codes += [char] * int(number or 1)
            number = ""
    return codes


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_doc_builder_and_module(name: str) -> None:
    doc = import_module(f"fatpatch.formats.{name}").DOC
    assert doc.name == name
    assert doc.title
    assert doc.summary.endswith(".")
    assert doc.references
    assert doc.layouts or doc.values
    assert BUILDERS[name]


def test_every_layout_module_is_registered() -> None:
    folder = Path(import_module("fatpatch.formats._types").__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "_types", "names", "numbers"} == set(FORMATS)


def test_fatbin_layout_reads_the_builder() -> None:
    data = fatbin.container(
        fatbin.entry(fatbin.PTX, options=b"-O3", identifier=b"a.cu"),
        fatbin.packed(cubin.cubin(), "zstd", kind=2, major=1, minor=7, arch=75),
    )
    parsed = parse_layout(fatbin_format.FATBIN, data)
    first, second = parsed.entries
    assert (parsed.header.magic, parsed.header.version, parsed.header.header_size) == (0xBA55ED50, 1, 16)
    assert (first.header.kind, first.header.arch, first.header.major, first.header.minor) == (1, 75, 8, 4)
    assert (first.header.identifier_offset, first.header.identifier_length, first.header.options_offset) == (64, 4, 72)
    assert first.extension[:5] == b"a.cu\0"
    assert second.header.flags == 0x8011
    assert build_layout(fatbin_format.FATBIN, parsed) == data


def test_other_layouts_read_their_builders() -> None:
    record = parse_layout(nvinfo.RECORD, b"\x04\x2f\x08\x00\x01\0\0\0\x28\0\0\0")
    assert (record.form, record.attribute, record.value) == (4, 0x2F, b"\x01\0\0\0\x28\0\0\0")
    old = parse_layout(cubin_format.FLAGS_OLD, struct.pack("<I", 0x5A0D5A))
    assert (old.sm, old.virtual_sm, old.accelerated, old.wide_addresses) == (90, 90, True, True)
    new = parse_layout(cubin_format.FLAGS_NEW, struct.pack("<I", 0x600640A))
    assert (new.sm, new.layout, new.accelerated) == (100, 6, True)
    parsed = parse_layout(offload_bundle.BUNDLE, bundle.plain([("gfx1030", b"x")]))
    assert [row.id for row in parsed.entries] == ["host-x86_64-unknown-linux-gnu-", "hipv4-amdgcn-amd-amdhsa--gfx1030"]
    for version, layout in ((1, offload_bundle.CCOB_V1), (2, offload_bundle.CCOB_V2), (3, offload_bundle.CCOB_V3)):
        data = bundle.ccob(bundle.plain([("gfx1030", b"x")]), version)
        head = parse_layout(layout, data)
        assert head.version == version
        assert getattr(head, "total_size", len(data)) == len(data)
        assert bundle_reader.CCOB_HEADERS[version].size == layout.sizeof()
    local = parse_layout(zip_format.LOCAL, archive.zip_file([(b"a", b"data")]))
    assert (local.name, local.size, local.method) == (b"a", 4, 0)
    header = parse_layout(tar.HEADER, archive.tar_file([("name", b"x")]))
    assert header.name.rstrip(b"\0") == b"name"
    assert parse_layout(gguf_format.HEADER, gguf.model()).tensors == 2


def test_parse_errors_name_offset_and_field() -> None:
    with pytest.raises(FormatError) as caught:
        parse_layout(fatbin_format.CONTAINER_HEADER, b"\x50\xed\x55\xba\x01", offset=0x40, locator="x!fatbin[0]")
    assert caught.value.offset == 0x40
    assert caught.value.field == "version"
    assert caught.value.__cause__ is not None
