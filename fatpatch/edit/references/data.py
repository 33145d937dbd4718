"""Pointers and offsets in data, by their values alone.

In a program at a fixed address any eight bytes may be a pointer. Everywhere, 32-bit offsets may count from their own place, from the
start of their table, or from the image base; any number might be one, so only those count that lead to a place that a table would name:
where a payload starts, or where one of its entries does; and not where the numbers around them lead into payloads as well, but to no
such place, as in arrays of plain numbers.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import compress, repeat
from operator import add, rshift

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import CHUNK
from fatpatch.edit.references.lanes import aligned, numbers
from fatpatch.edit.references.parts import merged
from fatpatch.edit.references.program import PAGE_BITS, LinkedProgram, Part, PayloadReference, Ranges
from fatpatch.formats import numbers as n

_OVERLAP = 8
_MAX32 = 1 << 31
_TABLE = 4096
"""Bytes before an offset in which its table begins."""
_TABLE_IN_CODE = 64
"""The same in code, where something leads to almost every place."""
_LARGE = 1 << 20
"""Bytes of code in which no table of offsets is looked for, and of data in which no packed one is: compilers do not make them."""
_STRUCTURE = 16
"""The same of an offset to an entry inside a payload, where no other offset to a payload is near: many numbers lead to some entry."""
_PACKED = 8
"""The same of an offset that is not aligned, as packed structures have them."""
_MAX_OFFSETS = 1 << 14
_AROUND = 16
"""Numbers on each side that tell whether one is part of a dense array of plain numbers."""
_MISSES = 4


class Offset(NamedTuple):
    """A number that would be an offset into a payload if something led to the addresses [``start``, ``end``), where its table begins."""

    found: PayloadReference
    start: int
    end: int


def pointers(program: LinkedProgram, ranges: Ranges) -> Iterator[PayloadReference]:
    """The words that are addresses in ``ranges``; none in a program that is loaded anywhere. Those that are not aligned count where a
    payload begins: a table of characters in glibc led to an entry by chance.
    """
    if not program.fixed:
        return
    for part, data, address in _blocks(program):
        instructions = part.code and program.machine == n.EM_X86_64  # whose constants are looked at as such
        for at, value in numbers(data, ranges.low, ranges.high, 8):
            named = ranges.named(value) if (address + at) % 4 == 0 else value in ranges.marks
            if value in ranges and (named or (not instructions and _may_be_pointer(data, at, address, value, ranges))):
                yield PayloadReference(address + at, value, "a pointer")
        if not part.code and ranges.low < 1 << 32:
            for at, value in numbers(data, ranges.low, min(ranges.high, (1 << 32) - 1), 4):
                if ranges.named(value) and (address + at) % 4 == 0:
                    yield PayloadReference(address + at, value, "a 32-bit pointer")


def offsets(program: LinkedProgram, ranges: Ranges) -> list[Offset]:
    """The numbers that may be offsets into ``ranges``: the first of them, where there are very many."""
    found: list[Offset] = []
    layout = _Layout(program, ranges)
    for part, data, address in _blocks(program):
        if part.code and part.size > _LARGE and program.functions():
            continue
        found += _relative(layout, part, data, address, ranges)
        if not part.code and part.size <= _LARGE:
            shifts = ((shift - address) % 4 for shift in (1, 2, 3))
            found += (each for shift in shifts for each in _packed(data, address, ranges, shift, program.base))
        if not part.code and program.base is not None:
            found += _from_base(data, address, program.base, ranges)
        if len(found) > _MAX_OFFSETS:
            break
    return found[:_MAX_OFFSETS]


class _Layout:
    """Where a program's code is, and where anything is."""

    def __init__(self, program: LinkedProgram, ranges: Ranges) -> None:
        self._low = min([ranges.low, *(part.address for part in program.parts)])
        self._high = max([ranges.high, *(part.address + part.size for part in program.parts)])
        code = merged((part.address, part.address + part.size) for part in program.parts if part.code)
        self._starts, self._ends = [start for start, _ in code], [end for _, end in code]

    def is_data(self, address: int) -> bool:
        """Whether the address is one of the program's, and none of code."""
        index = bisect.bisect_right(self._starts, address) - 1
        return self._low <= address < self._high and (index < 0 or address >= self._ends[index])


def is_round(value: int) -> bool:
    """Whether a number looks like one that a person wrote, or like a mask, rather than like the address of something inside a payload."""
    return value % 1000 == 0 or value & (value - 1) == 0 or value & (value + 1) == 0


def _blocks(program: LinkedProgram) -> Iterator[tuple[Part, bytes, int]]:
    """What is loaded, in pieces; not those that are zeros alone, as where images were taken out in place."""
    for part in program.parts:
        for start in range(0, part.size, CHUNK):
            data = program.source.peek(part.offset + start, min(CHUNK + _OVERLAP, part.size - start))
            if data.lstrip(b"\0"):
                yield part, data, part.address + start


def _may_be_pointer(data: bytes, at: int, address: int, value: int, ranges: Ranges) -> bool:
    """Whether a word that leads to the inside of a payload may be a pointer, rather than a number, the last of an array of 32-bit numbers
    (as the tables of printf in glibc), or the end of a string.
    """
    shaped = (address + at) % 8 == 0 and (value % 8 == 0 or ranges.in_head(value))
    in_array = int.from_bytes(data[max(at - 4, 0) : at], "little") in ranges
    return shaped and not in_array and not is_round(value) and not _is_text(value.to_bytes(8, "little").rstrip(b"\0"))


def _is_text(data: bytes) -> bool:
    return bool(data) and data.isascii() and data.decode().isprintable()


def _relative(layout: _Layout, part: Part, data: bytes, address: int, ranges: Ranges) -> Iterator[Offset]:
    """Offsets from their own place, or from the start of a table that a compiler made of pointers (LLVM's RelLookupTableConverter)."""
    first = -address % 4
    lowest, highest = max(ranges.low - address - len(data), -_MAX32), min(ranges.high + _TABLE - address, _MAX32 - 1)
    indices, words = aligned(data, first, lowest, highest, ranges.rests)
    places = range(address + first, address + len(data), 4)
    reached = list(map(add, map(words.__getitem__, indices), map(places.__getitem__, indices)))
    marks, inner = ranges.sorted_marks, ranges.inner
    reach_back = _TABLE_IN_CODE if part.code else _TABLE
    near = map(ranges.name_pages.__contains__, map(rshift, reached, repeat(PAGE_BITS)))
    for index, reach in compress(zip(indices, reached, strict=True), near):
        place = places[index]
        value = reach - place
        if reach in inner and not _scattered(words, index, place, 4, ranges):
            alone = all(map(ranges.names.isdisjoint, _beside(words, index, place, 4)))
            if not (alone and _is_text(data[max(first + 4 * index - 4, 0) : first + 4 * index])):
                yield Offset(
                    PayloadReference(place, reach, "an offset from its own place"), place - (_STRUCTURE if alone else reach_back), place + 1
                )
        for mark in marks[bisect.bisect_left(marks, reach - _TABLE) : bisect.bisect_right(marks, reach)]:
            start = mark - value
            if value & 3 != mark - place & 3 or _scattered(words, index, start, 4 * (start == place), ranges):
                continue
            if start == place:
                yield Offset(PayloadReference(place, mark, "an offset from its own place"), place - reach_back, place + 1)
            elif _is_table(layout, data[max(first + 4 * index - (place - start), 0) : first + 4 * index], start):
                yield Offset(PayloadReference(place, mark, "an offset from the start of its table"), start, start + 1)


def _scattered(words: Sequence[int], index: int, base: int, step: int, ranges: Ranges) -> bool:
    """Whether a number is one of a dense array of plain ones: on both sides of it others, read as it is, lead into payloads, and none of
    them to a place that a table would name. ``base``: what it counts from; ``step``: how much farther on the number behind it counts from.
    """
    before, behind = _beside(words, index, base, step)
    if not (ranges.names.isdisjoint(before) and ranges.names.isdisjoint(behind)):
        return False
    low, high = ranges.outermost
    return min(sum(low <= reached < high for reached in side) for side in (before, behind)) >= _MISSES


def _beside(words: Sequence[int], index: int, base: int, step: int) -> tuple[list[int], list[int]]:
    """Where the numbers before and behind one lead, read as it is."""
    first = max(index - _AROUND, 0)
    before = [base + step * distance + word for distance, word in enumerate(words[first:index], first - index)]
    return before, [base + step * distance + word for distance, word in enumerate(words[index + 1 : index + 1 + _AROUND], 1)]


def _packed(data: bytes, address: int, ranges: Ranges, first: int, base: int | None) -> Iterator[Offset]:
    """Offsets that are not aligned, from their own place or the image base, to where a payload begins: to the entries in it too many
    numbers would lead.
    """
    ways = [(address + first, 4, "its own place")] + ([(base, 0, "the image base")] if base is not None else [])
    for origin, step, words_for_it in ways:
        lowest, highest = max(ranges.low - origin - (len(data) if step else 0), -_MAX32), min(ranges.high - origin, _MAX32 - 1)
        indices, words = aligned(data, first, lowest, highest, [rest - origin for rest in ranges.rests])
        for index in indices:
            place, counted = address + first + 4 * index, origin + step * index
            if counted + words[index] in ranges.marks and not _scattered(words, index, counted, step, ranges):
                how = f"an offset from {words_for_it}"
                yield Offset(PayloadReference(place, counted + words[index], how), place - _PACKED, place + 1)


def _is_table(layout: _Layout, words: bytes, start: int) -> bool:
    """Whether all 32-bit numbers in ``words`` are offsets from ``start`` to data or payloads of the program; a switch's lead to code."""
    return all(
        layout.is_data(start + int.from_bytes(words[word : word + 4], "little", signed=True)) for word in range(0, len(words) - 3, 4)
    )


def _from_base(data: bytes, address: int, base: int, ranges: Ranges) -> Iterator[Offset]:
    rests = [rest - base for rest in ranges.rests]
    indices, words = aligned(data, -address % 4, max(ranges.low - base, 1), min(ranges.high - base, _MAX32 - 1), rests)
    for index in indices:
        value = words[index]
        if base + value in ranges.names and not _scattered(words, index, base, 0, ranges):
            place = address + -address % 4 + 4 * index
            yield Offset(PayloadReference(place, base + value, "an offset from the image base"), place - _TABLE, place + 1)
