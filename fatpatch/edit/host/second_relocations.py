"""Relocation tables as the second reader compares them: raw, where LIEF says that they lie.

LIEF makes an object for each relocation, 600 bytes of memory; a library may have a million.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source

_ROW = struct.Struct("<QQq")
_BLOCK = _ROW.size << 15
_WORD = 8
_REACH = 63


class RelocationTable(NamedTuple):
    """A relocation table: its place in the file, its size, and how it is read: rows with addends, packed places, or bytes alone."""

    offset: int
    size: int
    layout: str


class RelocationTables(NamedTuple):
    """The tables of one file, and where an address lies in it; -1 for nowhere."""

    source: Source
    rows: Mapping[str, RelocationTable]
    offset_of: Callable[[int], int]


def relocation_problems(old: RelocationTables, new: RelocationTables, moved: Mapping[int, int]) -> Iterator[str]:
    """What differs, but for relocations that lead to moved payloads: old to new address."""
    for name in old.rows.keys() | new.rows.keys():
        first, second = old.rows.get(name), new.rows.get(name)
        if first is None or second is None or first.size != second.size:
            yield f"relocations: another table {name}"
        elif first.layout == "rows":
            yield from _rows(old.source.slice(first.offset, first.size), new.source.slice(second.offset, second.size), moved)
        elif any(one != other for one, other in _blocks(old.source, first, new.source, second)):
            yield f"relocations: another content of the table {name}"
        elif first.layout == "packed":
            yield from _packed(old, first, new, moved)


def _blocks(old: Source, first: RelocationTable, new: Source, second: RelocationTable) -> Iterator[tuple[bytes, bytes]]:
    for at in range(0, first.size, _BLOCK):
        size = min(_BLOCK, first.size - at)
        yield old.peek(first.offset + at, size), new.peek(second.offset + at, size)


def _rows(old: Source, new: Source, moved: Mapping[int, int]) -> Iterator[str]:
    whole = old.size // _ROW.size * _ROW.size
    for at in range(0, whole, _BLOCK):
        one, other = (each.peek(at, min(_BLOCK, whole - at)) for each in (old, new))
        if one == other and moved.keys().isdisjoint(_words(one)[2::3]):
            continue
        for (place, info, addend), (new_place, new_info, new_addend) in zip(_ROW.iter_unpack(one), _ROW.iter_unpack(other), strict=True):
            if (place, info) != (new_place, new_info):
                yield f"the relocation of {place:#x} is one of {new_place:#x}, or another kind"
            elif new_addend != moved.get(addend, addend):
                yield f"the relocation of {place:#x} leads to {new_addend:#x}, expected {moved.get(addend, addend):#x}"


def _packed(old: RelocationTables, table: RelocationTable, new: RelocationTables, moved: Mapping[int, int]) -> Iterator[str]:
    """The pointers that RELR relocates: an even word is the address of one, an odd one has a bit for each of the 63 words behind."""
    place = 0
    for entry in _words(old.source.peek(table.offset, table.size)):
        if entry & 1:
            first, size, chosen = place, _REACH, entry >> 1
            place += _REACH * _WORD
        else:
            first, size, chosen = entry, 1, 1
            place = entry + _WORD
        one, other = (_words(each.source.peek(each.offset_of(first), size * _WORD)) for each in (old, new))
        if one == other and moved.keys().isdisjoint(one):
            continue
        for index, (before, after) in enumerate(zip(one, other, strict=False)):
            if chosen >> index & 1 and after != moved.get(before, before):
                yield f"the relocated pointer at {first + index * _WORD:#x} leads to {after:#x}, expected {moved.get(before, before):#x}"


def _words(data: bytes) -> array[int]:
    words = array("Q", data[: len(data) // _WORD * _WORD])
    if sys.byteorder == "big":
        words.byteswap()
    return words
