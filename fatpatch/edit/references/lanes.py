"""Little-endian numbers in ranges, found in a block of bytes without a loop over all of them.

The upper half of a number in a range has few possible values. Which bytes may belong to one is told by a translation table, and how
they lie beside each other by shifts of one large integer, which take some nanoseconds a byte; only what passes is looked at as a number.
"""

from __future__ import annotations

import functools
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress

from fatpatch.base.patterns import lazy_pattern

_SET, _ANY = lazy_pattern(b"\x01"), lazy_pattern(rb"[^\x00]")
_ALL = (1 << 256) - 1
_PAIRS = 3
"""Pairs of a third and a fourth byte that one table tells: bit 0 is that of a byte before a field, the pairs have bits 2 to 7."""

_FEW = 64
"""Numbers that are looked at one by one."""

Halves = dict[int, int]
"""Upper halves of 32-bit numbers: by the fourth byte the third bytes, as a set of bits."""


def upper_halves(spans: Iterable[tuple[int, int]]) -> Halves:
    """The upper halves of the numbers lowest to highest of all spans; of negative numbers, and above 32 bits, those of the lower 32."""
    found: Halves = {}
    for lowest, highest in spans:
        first, last = lowest >> 16, highest >> 16
        for page in range(first >> 8, (last >> 8) + 1):
            low = first & 0xFF if page == first >> 8 else 0
            high = last & 0xFF if page == last >> 8 else 0xFF
            found[page & 0xFF] = found.get(page & 0xFF, 0) | ((2 << high) - (1 << low))
    return found


def fields(data: bytes, halves: Halves, lead: bytes | None = None) -> Iterator[int]:
    """The offsets of 4-byte numbers with one of the upper halves; where ``lead`` is given, a byte of it stands right before."""
    if not halves or len(data) < 4 + bool(lead):
        return
    found = _marked(data, halves, lead)
    shift = 1 if lead else 0
    for hit in _SET.finditer(found):
        yield hit.start() + shift


def _marked(data: bytes, halves: Halves, lead: bytes | None) -> bytes:
    """A byte 1 for each byte of ``data`` that a field with one of the upper halves begins at, or begins behind where ``lead`` is given."""
    size = len(data)
    to_third = 16 if lead is None else 24
    marks = lanes = 0
    pairs = list(_grouped(halves))
    for group in range(0, len(pairs), _PAIRS):
        table = 0 if lead is None or group else _lead_bits(lead)
        for place, (fourths, thirds) in enumerate(pairs[group : group + _PAIRS]):
            table |= _bits(thirds) << 2 * place + 2 | fourths << 2 * place + 3
        number = _translated(data, table)
        lanes = lanes or number
        both = number & number >> 9  # the bit of a third byte, and that of the fourth one behind it
        for place in range(len(pairs[group : group + _PAIRS])):
            marks |= both >> to_third + 2 * place + 2
    marks &= _ones(size)
    if lead is not None:
        marks &= lanes
    return marks.to_bytes(size, "little")


@functools.lru_cache(maxsize=8)
def _ones(size: int) -> int:
    return int.from_bytes(b"\x01" * size, "little")


@functools.lru_cache(maxsize=8)
def _lead_bits(lead: bytes) -> int:
    return sum(_run(byte, byte) for byte in lead)


def _run(first: int, last: int) -> int:
    """A 1 in each of the bytes first to last of a table of 256 bytes, as an integer."""
    return ((1 << 8 * (last + 1)) - (1 << 8 * first)) // 255


def _bits(chosen: int) -> int:
    """A 1 in each byte of a table whose bit is set in ``chosen``."""
    found, at = 0, 0
    while chosen >> at:
        at += ((chosen >> at) & -(chosen >> at)).bit_length() - 1
        run = (~(chosen >> at) & (chosen >> at) + 1).bit_length() - 1
        found |= _run(at, at + run - 1)
        at += run
    return found


def aligned(data: bytes, start: int, lowest: int, highest: int, rests: Iterable[int] = range(4)) -> tuple[list[int], Sequence[int]]:
    """Which signed 32-bit numbers but 0 at ``start``, ``start`` + 4 and so on have an upper half of [lowest, highest], and leave one of
    the ``rests`` when divided by 4; and all numbers.
    """
    count = max(len(data) - start, 0) // 4
    end = start + 4 * count
    words = array("i", data[start:end])
    if sys.byteorder == "big":
        words.byteswap()
    if lowest > highest:
        return [], words
    rests = frozenset(rest & 3 for rest in rests)
    if count < _FEW:
        return [at for at, word in enumerate(words) if word and lowest <= word <= highest and word & 3 in rests], words
    marks = _upper_marked(data[start:end], upper_halves([(lowest, highest)]))
    if len(rests) < 4:
        marks &= _translated(data[start:end:4], sum(_run(byte, byte) * 0xFF for byte in range(256) if byte & 3 in rests))
    found = [hit.start() for hit in _ANY.finditer(marks.to_bytes(count, "little"))]
    return found if lowest > 0 else list(compress(found, map(words.__getitem__, found))), words


def words_with(data: bytes, halves: Halves) -> Iterator[int]:
    """Which of the 4-byte words of ``data`` have one of the upper halves: their indices."""
    count = len(data) // 4
    return (hit.start() for hit in _ANY.finditer(_upper_marked(data[: 4 * count], halves).to_bytes(count, "little")))


def _upper_marked(data: bytes, halves: Halves) -> int:
    """A byte other than 0 for each 4-byte word of ``data`` that has one of the upper halves."""
    third, fourth = data[2::4], data[3::4]
    groups, marks = list(_grouped(halves)), 0
    for first in range(0, len(groups), 8):
        thirds = sum(_bits(chosen) << bit for bit, (_, chosen) in enumerate(groups[first : first + 8]))
        fourths = sum(table << bit for bit, (table, _) in enumerate(groups[first : first + 8]))
        marks |= _translated(third, thirds) & _translated(fourth, fourths)
    return marks


def _translated(data: bytes, table: int) -> int:
    return int.from_bytes(data.translate(table.to_bytes(256, "little")), "little")


def _grouped(halves: Halves) -> Iterator[tuple[int, int]]:
    """(table of fourth bytes, third bytes) of upper halves, those with the same third bytes together."""
    groups: dict[int, int] = {}
    for fourth, thirds in halves.items():
        groups[thirds] = groups.get(thirds, 0) | _run(fourth, fourth)
    yield from ((table, thirds) for thirds, table in groups.items())


def numbers(data: bytes, lowest: int, highest: int, width: int) -> Iterator[tuple[int, int]]:
    """(offset, value) of every number of ``width`` bytes, 4 or 8, in [lowest, highest]; negative ones where ``lowest`` is."""
    if lowest > highest:
        return
    signed = lowest < 0
    for upper in range(lowest >> 32, (highest >> 32) + 1) if width == 8 else (lowest >> 32,):
        low, high = (max(lowest, upper << 32), min(highest, (upper << 32) + 0xFFFFFFFF)) if width == 8 else (lowest, highest)
        rest = (upper & 0xFFFFFFFF).to_bytes(4, "little")
        for at in fields(data, upper_halves([(low, high)])):
            if at + width > len(data) or (width == 8 and data[at + 4 : at + 8] != rest):
                continue
            value = int.from_bytes(data[at : at + width], "little", signed=signed)
            if lowest <= value <= highest:
                yield at, value
