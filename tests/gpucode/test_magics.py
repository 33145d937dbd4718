"""The map of magics finds what a plain search finds, whatever was looked for before, and steps over compressed streams."""

from __future__ import annotations

import random

import pytest
import zstandard

from fatpatch.base.source import Source
from fatpatch.gpucode.finder import ELF_HEAD, PTX_WORD
from fatpatch.gpucode.frames import StreamBudget
from fatpatch.gpucode.magics import Magics

ALIGNED = b"\x50\xed\x55\xba\x01\x00\x10\x00"


def expected(data: bytes, needle: bytes, start: int, end: int) -> int:
    """By one byte after the other; the aligned one at multiples of 8 only."""
    at = data.find(needle, start, end)
    while needle == ALIGNED and at >= 0 and at % 8:
        at = data.find(needle, at + 1, end)
    return at


@pytest.mark.parametrize("seed", range(12))
def test_every_question_is_answered_as_by_a_plain_search(seed: int) -> None:
    dice = random.Random(seed)
    data = bytearray(dice.choices(b"\x00\x01\x7fE.v\xed ", k=dice.choice((500, 9_000, 700_000))))
    for _ in range(dice.randrange(12)):
        needle = dice.choice((ELF_HEAD, PTX_WORD, ALIGNED))
        at = dice.randrange(len(data) - 16)
        data[at : at + len(needle)] = needle
    whole = bytes(data)
    magics = Magics(Source.of(whole), (ELF_HEAD, PTX_WORD), ALIGNED, StreamBudget())
    for _ in range(60):
        start = dice.randrange(len(whole))
        end = dice.randrange(start, len(whole) + 1)
        needle = dice.choice((ELF_HEAD, PTX_WORD, ALIGNED))
        assert magics.find(needle, start, end) == expected(whole, needle, start, end)
        if dice.random() < 0.3:
            found = [at for each in (ELF_HEAD, PTX_WORD, ALIGNED) if (at := expected(whole, each, start, end)) >= 0]
            assert magics.first(start, end) == min(found, default=-1)


@pytest.mark.parametrize("size", [0, 7, 4096, 4099, 12_288, 12_300, 70_000])
def test_the_first_of_all_lies_where_bytes_find_it(size: int) -> None:
    """Needles at and over the edges of the pieces that are read."""
    needles = (b"CCOB", b".version ", b"\x7fELF")
    for places in ((0,), (4090, 4094), (12_284,), (12_290, 4096), (69_991, 69_996)):
        data = bytearray(size)
        for number, at in enumerate(places):
            data[at : at + len(needles[number])] = needles[number]
        whole = bytes(data[:size])
        magics = Magics(Source.of(whole), needles, b"", StreamBudget())
        for start, end in ((0, size), (1, size - 1), (4091, 12_287)):
            found = [at for needle in needles if (at := whole.find(needle, start, max(end, 0))) >= 0]
            assert magics.first(start, end) == min(found, default=-1), (places, start, end)


def test_what_holds_no_magic_is_read_once() -> None:
    class Counted(Source):
        """A source that knows how much was asked of it."""

        read_bytes = 0

        def peek(self, offset: int, size: int) -> bytes:
            data = super().peek(offset, size)
            self.read_bytes += len(data)
            return data

    plain = Source.of(bytes(range(1, 251)) * 8_000)
    source = Counted(plain._backing, 0, plain.size)
    magics = Magics(source, (ELF_HEAD, PTX_WORD), ALIGNED, StreamBudget())
    assert magics.first(0, source.size) == -1
    assert source.size <= source.read_bytes < source.size * 1.01
    before = source.read_bytes
    assert all(magics.find(needle, 100, source.size) == -1 for needle in (ELF_HEAD, PTX_WORD, ALIGNED))
    assert source.read_bytes - before < 100


def test_a_compressed_stream_is_stepped_over_and_what_follows_is_found() -> None:
    noise = random.Random(1).randbytes(600_000)
    frame = zstandard.ZstdCompressor().compress(noise + ELF_HEAD + noise)
    assert ELF_HEAD in frame, "bytes that do not shrink are kept as they are"
    lead = bytes(range(1, 251)) * 480
    behind = b"\1" * 40 + ELF_HEAD
    for frames in (frame, frame + bytes(-len(frame) % 16) + frame):
        data = lead + frames + behind
        magics = Magics(Source.of(data), (ELF_HEAD, PTX_WORD), ALIGNED, StreamBudget())
        assert magics.find(ELF_HEAD, 0, len(data)) == len(data) - len(ELF_HEAD)


def test_a_stream_that_does_not_end_hides_nothing() -> None:
    noise = random.Random(2).randbytes(600_000)
    frame = zstandard.ZstdCompressor().compress(noise)
    lead = bytes(range(1, 251)) * 480
    cut = frame[:300_000] + b"\xff" * 40 + ELF_HEAD + b"\xff" * 400_000
    data = lead + cut
    magics = Magics(Source.of(data), (ELF_HEAD, PTX_WORD), ALIGNED, StreamBudget())
    assert magics.find(ELF_HEAD, 0, len(data)) == len(lead) + 300_040
