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


@given(st.binary(max_size=40), st.integers(0, 20_000))
def test_find_aligned_equals_find(noise: bytes, gap: int) -> None:
    needle = b"\x50\xed\x55\xba\x01\x00\x10\x00"
    data = noise + b"\xba" * gap + needle + noise + needle
    source = Source.of(data)
    expected = next((at for at in range(0, len(data), 8) if data.startswith(needle, at)), -1)
    assert source.find_aligned(needle, 0, len(data)) == expected
    start, other = min(3, len(data)), b"\x7fELF"
    expected = next((at for at in range(8, len(data), 8) if data.startswith(needle, at)), -1)
    assert source.find_any((other,), start, len(data), needle) == min(
        (at for at in (expected, data.find(other, start)) if at >= 0), default=-1
    )
    assert source.find(needle, 0, len(data)) == data.find(needle)


@pytest.mark.parametrize("size", [0, 7, 4096, 4099, 12_288, 12_300, 70_000])
def test_find_any_is_the_first_of_all(size: int) -> None:
    """Needles at and over the edges of the pieces that are read: as bytes.find of each."""
    needles = (b"CCOB", b".version ", b"\x7fELF")
    for places in ((0,), (4090, 4094), (12_284,), (12_290, 4096), (69_991, 69_996)):
        data = bytearray(size)
        for number, at in enumerate(places):
            data[at : at + len(needles[number])] = needles[number]
        data = data[:size]
        source = Source.of(bytes(data))
        for start, end in ((0, size), (1, size - 1), (4091, 12_287)):
            part = bytes(data[start : max(end, 0)])
            found = [at for needle in needles if (at := part.find(needle)) >= 0]
            assert source.find_any(needles, start, end) == (min(found) + start if found else -1), (places, start, end)
