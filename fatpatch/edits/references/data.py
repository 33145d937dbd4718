"""Pointers and offsets in data, by their values alone.

In a program at a fixed address any eight bytes may be a pointer. Everywhere, 32-bit offsets may count from their own place or from the
image base; any number might be one, so only those count that lead to a place that a table would name: where a payload starts, where its
first entry does, or where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fatpatch.edits.references.lanes import aligned, numbers
from fatpatch.edits.references.program import Part, Program, Ranges, Reference
from fatpatch.formats import numbers as n
from fatpatch.source import CHUNK

_OVERLAP = 8
_MAX32 = 1 << 31


def words(program: Program, ranges: Ranges, used: Callable[[int], bool]) -> Iterator[Reference]:
    """The words of data, and of code in a program at a fixed address, that lead into ``ranges``.

    ``used``: whether anything leads to the table that a place may belong to; an offset in no such table is a coincidence.
    """
    for part in program.parts:
        for start in range(0, part.size, CHUNK):
            data = program.source.peek(part.offset + start, min(CHUNK + _OVERLAP, part.size - start))
            address = part.address + start
            if program.fixed and not (part.code and program.machine == n.EM_X86_64):  # whose constants are looked at as instructions
                yield from _absolute(data, address, ranges, part)
            if not part.code:
                offsets = [*_relative(data, address, ranges)]
                if program.base is not None:
                    offsets += _from_base(data, address, program.base, ranges)
                yield from (each for each in offsets if used(each.place))


def _absolute(data: bytes, address: int, ranges: Ranges, part: Part) -> Iterator[Reference]:
    for at, value in numbers(data, ranges.low, ranges.high, 8):
        if value not in ranges:
            continue
        aligned = (address + at) % 8 == 0
        if value in ranges.marks or (aligned and (part.writable or not _is_text(data[at : at + 8]))):
            yield Reference(address + at, value, "a pointer")


def _is_text(word: bytes) -> bool:
    """Whether a word of read-only data is the end of a string rather than an address."""
    return word.rstrip(b"\0").isascii() and word.rstrip(b"\0").decode().isprintable()


def _relative(data: bytes, address: int, ranges: Ranges) -> Iterator[Reference]:
    lowest, highest = max(ranges.low - address - len(data), -_MAX32), min(ranges.high - address, _MAX32 - 1)
    marks = ranges.marks
    for at, value in aligned(data, -address % 4, lowest, highest):
        if address + at + value in marks and value:
            yield Reference(address + at, address + at + value, "an offset from its own place")


def _from_base(data: bytes, address: int, base: int, ranges: Ranges) -> Iterator[Reference]:
    for at, value in aligned(data, -address % 4, max(ranges.low - base, 1), min(ranges.high - base, _MAX32 - 1)):
        if base + value in ranges.marks:
            yield Reference(address + at, base + value, "an offset from the image base")
