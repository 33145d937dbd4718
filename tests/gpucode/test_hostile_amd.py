"""Hostile AMD files: what repeats, overlaps or unfolds without end is bounded and told; nothing is dropped in silence."""

from __future__ import annotations

import struct
from pathlib import Path

import msgpack
import pytest
import zstandard
from builders import bundle, elf

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.source import Source
from fatpatch.gpucode.code_object.read import read_code_object
from fatpatch.gpucode.frames import StreamBudget, stream_end
from fatpatch.gpucode.metadata import unpacked
from fatpatch.gpucode.spirv import read_module
from fatpatch.model.tree import Node
from fatpatch.scan.survey import survey
from fatpatch.scan.walk import inspected

OBJECT = bundle.code_object(target="gfx1030")


def read(tmp_path: Path, data: bytes, name: str = "x.so") -> Node:
    path = tmp_path / name
    path.write_bytes(data)
    with inspected(str(path)) as node:
        return node


def test_streams_that_lead_nowhere_share_a_budget() -> None:
    """Each magic of version 1 may start a walk of its own through the same endless chain."""
    chain = b"\x28\xb5\x2f\xfd\x00\x58" + struct.pack("<I", 8 << 3 | 1 << 1)[:3] + b"\0"
    data = chain + b"\x42\0\0\0" * 1000
    budget = StreamBudget(blocks=2500)
    assert [stream_end(Source.of(data), 0, len(data), "zstd", budget) for _ in range(4)] == [None] * 4
    assert budget.blocks == 0


@pytest.mark.parametrize(("codec", "pack"), [("zstd", zstandard.compress), ("zlib", __import__("zlib").compress)])
def test_the_end_of_a_stream(codec: str, pack: object) -> None:
    for content in (b"", b"x", bytes(1 << 20), bytes(range(256)) * 5000):
        stream = pack(content)
        data = b"ab" + stream + b"tail" * 10
        assert stream_end(Source.of(data), 2, len(data), codec, StreamBudget()) == 2 + len(stream)
        assert stream_end(Source.of(data[: len(stream)]), 2, len(stream), codec, StreamBudget()) is None


def test_many_empty_host_entries(tmp_path: Path) -> None:
    rows = b"".join(struct.pack("<QQQ", 4096, 0, 5) + b"host-" for _ in range(300))
    data = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", 300) + rows
    node = read(tmp_path, data + bytes(5000), "x.hipfb")
    assert node.diagnostics[0].field == "entry count"


def test_many_references_to_packs(tmp_path: Path) -> None:
    region = msgpack.packb({"kernel_name": "x", "kpack_search_paths": ["y"]}) * 400
    size = len(region) // 400

    def built(base: int) -> bytes:
        wrappers = b"".join(bundle.wrapper(base + index * size, 0x4B504948) for index in range(400))
        return elf.shared_object([(".ref", region), (".hipFatBinSegment", wrappers)])

    node = read(tmp_path, built(0x10000 + built(0).index(region)))
    assert 200 <= len(node.payloads) <= 201


def test_wrappers_into_the_middle_of_a_bundle(tmp_path: Path) -> None:
    data = bundle.plain([("gfx1030", OBJECT + bundle.plain([("gfx1031", OBJECT)]))])

    def built(base: int) -> bytes:
        return elf.shared_object([(".hip_fatbin", data), (".hipFatBinSegment", bundle.wrapper(base))])

    inner = data.index(b"__CLANG", 10)
    node = read(tmp_path, built(0x10000 + built(0).index(data) + inner))
    assert len(node.payloads) == 1
    assert [item.field for item in node.diagnostics] == ["bundle pointer"]


def test_objects_of_a_pack_are_given_out_once(tmp_path: Path) -> None:
    pack = bytearray(bundle.kpack({"a": {"gfx1030": OBJECT}, "b": {"gfx1030": OBJECT}}))
    at = pack.rindex(b"ordinal\x01")
    pack[at + 7] = 0
    node = read(tmp_path, bytes(pack), "x.kpack")
    assert [image.readable for payload in node.payloads for image in payload.images] == [True, False]
    assert [item.field for item in node.diagnostics] == ["ordinal"]


def test_sizes_of_a_pack_are_compared(tmp_path: Path) -> None:
    pack = bytearray(bundle.kpack({"a": {"gfx1030": OBJECT}}, zstd=True))
    at = pack.rindex(b"original_size") + 13
    pack[at + 1 : at + 3] = b"\x7f\xff"
    node = read(tmp_path, bytes(pack), "x.kpack")
    assert [item.field for item in node.diagnostics] == ["original_size"]
    assert node.payloads[0].images[0].size == len(OBJECT), "the frame itself says it"


def test_a_section_of_many_frames(tmp_path: Path) -> None:
    frames = zstandard.compress(bundle.spirv("k")) * 4100
    node = read(tmp_path, elf.shared_object([("__CLANG_OFFLOAD_BUNDLE__sycl-spir64", frames)]))
    assert len(node.payloads[0].images) == 4096
    assert ["more than 4096 images" in item.message for item in node.diagnostics] == [True]


def test_modules_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "x.so"
    path.write_bytes(elf.shared_object([("__CLANG_OFFLOAD_BUNDLE__sycl-spir64", bundle.spirv("a") + bytes(12) + bundle.spirv("b"))]))
    with inspected(str(path)) as node:
        found = [[row[0] for row in finding.rows or ()] for _, finding in survey([node], limit=1 << 20, jobs=1)]
    assert found == [["a"], ["b"]]


def test_a_module_ends_behind_its_last_function() -> None:
    module = bundle.spirv("k")
    assert read_module(module + struct.pack("<I", 1 << 16 | 8000) * 5000).size == len(module)


@pytest.mark.parametrize("what", ["note", "symbols"])
def test_sections_that_overlap(what: str) -> None:
    data = bytearray(OBJECT)
    shoff = struct.unpack_from("<Q", data, 40)[0]
    row = data[shoff + 64 : shoff + 128]
    if what == "symbols":
        row[4:8] = (2).to_bytes(4, "little")
    struct.pack_into("<H", data, 60, 404)
    struct.pack_into("<H", data, 62, 3)
    with pytest.raises(LimitError):
        read_code_object(bytes(data) + bytes(row) * 400)


def test_symbols_are_counted() -> None:
    data = bytearray(OBJECT)
    shoff = struct.unpack_from("<Q", data, 40)[0]
    struct.pack_into("<I", data, shoff + 64 + 4, 2)
    struct.pack_into("<Q", data, shoff + 64 + 32, 2_100_000 * 24)
    with pytest.raises(LimitError):
        read_code_object(bytes(data) + bytes(15 << 20))


def test_lists_within_lists_are_counted() -> None:
    many = 450_000
    with pytest.raises(LimitError):
        unpacked(b"\x81\xa1k\xdd" + many.to_bytes(4, "big") + b"\xdc\0\0" * many, "x")


def test_numbers_that_are_none(tmp_path: Path) -> None:
    data = (
        OBJECT.replace(b"vgpr_count\x0c", b"vgpr_count\xc3")
        .replace(b"sgpr_count\x14", b"sgpr_count\xfb")
        .replace(b".offset\0", b".offset\xc2", 1)
    )
    row = read_code_object(data).kernels[0]
    assert (row[1], row[8].sgprs, len(row[8].arguments)) == (None, None, 1)


def test_bundles_of_two_makers(tmp_path: Path) -> None:
    """Code for an AMD GPU stays that, whatever comes behind it."""
    data = bundle.plain([("gfx1030", OBJECT), ("gfx1031", b".version 8.0\n.target sm_70\n" + bytes(64))])
    data = data.replace(b"hipv4-amdgcn-amd-amdhsa--gfx1031", b"openmp-nvptx64-nvidia-cuda-sm_70")
    node = read(tmp_path, data, "x.hipfb")
    assert node.payloads[0].vendor == "amd"
    assert [(image.kind, image.target) for image in node.payloads[0].images] == [("hsaco", "gfx1030"), ("ptx", "sm_70")]


def test_bitcode_in_a_compressed_bundle(tmp_path: Path) -> None:
    node = read(tmp_path, bundle.ccob(bundle.plain([("gfx1030", b"BC\xc0\xde" + bytes(60))]), 3), "x.hipfb")
    assert [image.kind for image in node.payloads[0].images] == ["bitcode"]


@pytest.mark.parametrize("data", [b"", b"\x7fELF", OBJECT[:48], OBJECT[:70]])
def test_objects_cut_short(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_code_object(data)
