"""Little-endian numbers in a range, found in a block of bytes without a loop over all of them.

The upper half of a number in a range has few possible values. They are told by expressions and translation tables, which run at some
hundred megabytes a second; only what passes is looked at as a number.
"""

from __future__ import annotations

import functools
import re
import sys
from array import array
from collections.abc import Iterator

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple

_SET = lazy_pattern(b"\x01")
_ALL = (0, 0xFF)


class Box(NamedTuple):
    """Upper halves of 32-bit numbers: the third byte lies in the range ``third``, the fourth in ``fourth``; both ends included."""

    third: tuple[int, int]
    fourth: tuple[int, int]

    def pattern(self) -> bytes:
        """Both bytes as an expression."""
        return _class(*self.third) + _class(*self.fourth)


@functools.lru_cache(maxsize=256)
def boxes(lowest: int, highest: int) -> tuple[Box, ...]:
    """The upper halves of the numbers lowest to highest, which may be negative, and whose lower 32 bits alone are looked at."""
    first, last = lowest >> 16, highest >> 16
    found = []
    while first <= last:
        page, low = first >> 8, first & 0xFF
        sign_end = last if (page ^ last >> 8) & ~0xFF == 0 else (page | 0xFF) << 8 | 0xFF  # to where the fourth byte does not wrap
        if low or sign_end >> 8 == page:
            end = min(sign_end, page << 8 | 0xFF)
            box = Box((low, end & 0xFF), (page & 0xFF, page & 0xFF))
        else:
            full = (sign_end + 1 >> 8) - 1
            end, box = full << 8 | 0xFF, Box(_ALL, (page & 0xFF, full & 0xFF))
        found.append(box)
        first = end + 1
    return tuple(dict.fromkeys(found))


def numbers(data: bytes, lowest: int, highest: int, width: int) -> Iterator[tuple[int, int]]:
    """(offset, value) of every number of ``width`` bytes, 4 or 8, in [lowest, highest]; negative ones where ``lowest`` is."""
    if lowest > highest:
        return
    signed = lowest < 0
    for pattern, lead in _patterns(lowest, highest, width):
        for found in pattern.finditer(data):
            at = found.start() - lead
            if at < 0 or at + width > len(data):
                continue
            value = int.from_bytes(data[at : at + width], "little", signed=signed)
            if lowest <= value <= highest:
                yield at, value


def aligned(data: bytes, start: int, lowest: int, highest: int) -> Iterator[tuple[int, int]]:
    """(offset, value) of every signed 32-bit number at ``start``, ``start`` + 4 and so on whose upper half is one of [lowest, highest]."""
    if lowest > highest:
        return
    count = max(len(data) - start, 0) // 4
    end = start + 4 * count
    third, fourth = data[start + 2 : end : 4], data[start + 3 : end : 4]
    words = array("i", data[start:end])
    if sys.byteorder == "big":
        words.byteswap()
    for box in boxes(lowest, highest):
        marks = fourth.translate(_table(*box.fourth))
        if box.third != _ALL:
            both = int.from_bytes(marks, "little") & int.from_bytes(third.translate(_table(*box.third)), "little")
            marks = both.to_bytes(count, "little")
        for found in _SET.finditer(marks):
            index = found.start()
            yield start + 4 * index, words[index]


@functools.lru_cache(maxsize=256)
def _patterns(lowest: int, highest: int, width: int) -> tuple[tuple[re.Pattern[bytes], int], ...]:
    """Expressions for the upper bytes of a number, and how far behind its start each begins."""
    found = []
    for upper in range(lowest >> 32, (highest >> 32) + 1):
        low, high = max(lowest, upper << 32), min(highest, (upper << 32) + 0xFFFFFFFF)
        rest = b"".join(re.escape(bytes([byte])) for byte in (upper & 0xFFFFFFFF).to_bytes(4, "little")) if width == 8 else b""
        for box in boxes(low, high):
            if box.third == _ALL:
                found.append((re.compile(_class(*box.fourth) + b"(?=" + rest + b")", re.DOTALL), 3))
            else:
                found.append((re.compile(_class(*box.third) + b"(?=" + _class(*box.fourth) + rest + b")", re.DOTALL), 2))
    return tuple(dict.fromkeys(found))


def _class(first: int, last: int) -> bytes:
    return rb"[\x%02x-\x%02x]" % (first, last)


@functools.lru_cache(maxsize=1024)
def _table(first: int, last: int) -> bytes:
    """A translation to 1 for the bytes first to last, to 0 for all others."""
    return bytes(first <= value <= last for value in range(256))
