"""Locators, sources and the model's small promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fatpatch.base.errors import InputError, TruncatedError
from fatpatch.base.locator import escape, join, matches, steps
from fatpatch.base.source import Source


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=5))
def test_locators_round_trip_and_print(names: list[str]) -> None:
    locator = ""
    for name in names:
        locator = join(locator, name)
    assert steps(locator) == tuple(names)
    assert "\x1b" not in locator
    assert "\n" not in locator


def test_patterns() -> None:
    locator = "app.llamafile!ggml-cuda.dll!.nv_fatb!fatbin[3]!sm_61"
    assert matches(locator, "sm_6?")
    assert matches(locator, "fatbin[3]!sm_61")
    assert matches(locator, "app.llamafile!*!sm_61")
    assert not matches(locator, "fatbin[?]!sm_7*")
    assert not matches(locator, "m_61")
    assert len(escape("x" * 10_000)) < 260


def test_source_bounds(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 40)
    for source in (Source.open(str(path)), Source.of(path.read_bytes())):
        inner = source.slice(256, 512)
        assert inner.read(1, 2) == b"\1\2"
        assert inner.peek(510, 99) == b"\xfe\xff"
        assert inner.peek(512, 1) == inner.peek(-1, 1) == b""
        with pytest.raises(TruncatedError):
            inner.read(511, 2)
        with pytest.raises(TruncatedError):
            inner.slice(500, 13)
        assert inner.find(b"\xff\0", 0, 512) == 255
        assert inner.find(b"\xff\0", 0, 256) == -1
        assert b"".join(source.chunks()) == path.read_bytes()
        source.close()
    with pytest.raises(InputError):
        Source.open(str(tmp_path))
    with pytest.raises(InputError):
        Source.open("\0")


@pytest.mark.parametrize("size", [0, 7, 4096, 4099, 12_288, 12_300, 70_000])
def test_find_equals_that_of_bytes(size: int) -> None:
    """At and over the edges of the pieces that are read."""
    needle = b".version "
    for places in ((0,), (4090,), (12_284, 12_290), (69_991,)):
        data = bytearray(size)
        for at in places:
            data[at : at + len(needle)] = needle
        source = Source.of(bytes(data[:size]))
        for start, end in ((0, size), (1, size - 1), (4091, 12_287)):
            assert source.find(needle, start, end) == bytes(data[:size]).find(needle, start, max(end, 0)), (places, start, end)
