"""A fatbin as the driver walks it: sizes lead it, whatever is there (reference: load rules, A)."""

from __future__ import annotations

import struct

import pytest
from builders.cubin import cubin
from builders.fatbin import PTX, container, entry, packed

from fatpatch.base.source import Source
from fatpatch.gpucode.fatbin.driver_view import View, driver_view


def view(data: bytes, offset: int = 0) -> View:
    return driver_view(Source.of(data), offset, "x")


SASS = entry(cubin(arch=90), kind=2, arch=90)


def targets(data: bytes) -> list[str]:
    found = view(data)
    assert found.error is None, found
    return [image.target for image in found.images]


def test_entries_in_order_with_their_codecs() -> None:
    data = container(SASS, packed(PTX, "zstd"), entry(b"x" * 8, kind=0x7777, arch=0))
    found = view(data)
    assert [(image.target, image.kind, image.compression) for image in found.images] == [
        ("sm_90", "sass", "none"), ("compute_75", "ptx", "zstd"), ("unknown_0", "unknown", "none"),
    ]  # fmt: skip
    assert found.images[1].blob_size == len(PTX)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x50\xed\x55\xba\x01\x00\x10\x00" + bytes(4), 209),
        (bytes(16), 200),
        (container(SASS, version=0), 200),
        (container(SASS, version=2), 200),
        (container(SASS, bytes(8)) + bytes(64), "hang"),
        (container(bytes(64), SASS), "hang"),
        (container(SASS, bytes(64), SASS), "hang"),
        (container(entry(b"", kind=2, arch=90, payload_size=2**64 - 64)), "hang"),
        (container(entry(b"", kind=2, arch=90, payload_size=2**63)), "crash"),
        (container(SASS, size=len(SASS) + 64), "crash"),
        (container(SASS, header_size=24), "hang"),
    ],
    ids=["cut", "no magic", "version 0", "version 2", "zeros behind", "zeros first", "zeros between", "wraps to 0", "wraps back", "too large",
         "header 24"],
)  # fmt: skip
def test_before_anything_is_chosen(data: bytes, error: int | str) -> None:
    assert view(data).error == error


@pytest.mark.parametrize("size", [0, 2**63, 2**64 - 1])
def test_sizes_that_mean_nothing(size: int) -> None:
    assert targets(container(SASS, size=size)) == []


def test_sizes_that_still_work() -> None:
    assert targets(container(SASS, size=2**32 + len(SASS))) == ["sm_90"]
    assert targets(container(SASS, entry(PTX), size=len(SASS) + 8)) == ["sm_90", "compute_75"]  # the second is cut, and read
    assert targets(container(SASS, entry(PTX), size=len(SASS))) == ["sm_90"]
    assert targets(container(SASS) + b"\xab" * 100) == ["sm_90"]
    assert targets(container(bytes(8) + SASS[:0], SASS, header_size=24, size=len(SASS))) == ["sm_90"]
    assert targets(container(entry(b"", kind=0, arch=0), SASS)) == ["unknown_0", "sm_90"]


def test_other_bytes_are_taken_for_a_header() -> None:
    junk = struct.pack("<HHIQ", 0x5555, 0, 64, 8) + bytes(48) + bytes(8)
    assert targets(container(junk, SASS)) == ["unknown_0", "sm_90"]


def test_inside_a_larger_source() -> None:
    data = bytes(100) + container(SASS)
    assert [image.offset for image in view(data, 100).images] == [116]
