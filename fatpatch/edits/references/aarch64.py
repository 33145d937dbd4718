"""Instructions of aarch64 that name an address: adr, adrp with what uses its register, and loads from a literal.

Facts: Arm Architecture Reference Manual, ADR, ADRP, ADD (immediate), LDR (literal), loads and stores with an unsigned offset.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from fatpatch.edits.references.program import Part, Program, Ranges, Reference
from fatpatch.source import CHUNK

_PAGE = 0x1000
_ADDRESSES = re.compile(rb"[\x10\x30\x50\x70\x90\xb0\xd0\xf0\x18\x58\x98\xd8\x1c\x5c\x9c]")
"""The highest byte of adr and adrp, and of loads and prefetches from a literal."""
_WINDOW = 64
"""Instructions behind an adrp among which the use of its register is looked for."""


def instructions(program: Program, ranges: Ranges) -> Iterator[Reference]:
    """The instructions that lead into ``ranges``."""
    for part in program.parts:
        if part.code:
            lead = -part.address % 4
            for start in range(lead, part.size, CHUNK):
                data = program.source.peek(part.offset + start, min(CHUNK + 4 * _WINDOW, part.size - start))
                yield from _found(program, part, data[: len(data) & ~3], part.address + start, ranges)


def _found(program: Program, part: Part, data: bytes, address: int, ranges: Ranges) -> Iterator[Reference]:
    words = struct.unpack(f"<{len(data) // 4}I", data)
    for hit in _ADDRESSES.finditer(data[3::4]):
        index = hit.start()
        word, place = words[index], address + 4 * index
        if word >> 24 & 0x1B == 0x18:  # a load from a literal
            target = place + 4 * _signed(word >> 5 & 0x7FFFF, 19)
            if target in ranges:
                yield Reference(place, target, "the instruction 'ldr'")
            continue
        distance = _signed((word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2, 21)
        if not word >> 31:
            if place + distance in ranges:
                yield Reference(place, place + distance, "the instruction 'adr'")
            continue
        page = (place & ~(_PAGE - 1)) + (distance << 12)
        if page + _PAGE <= ranges.low or page >= ranges.high:
            continue
        yield from _paged(program, words, index, place, page, ranges)


def _paged(program: Program, words: Sequence[int], index: int, place: int, page: int, ranges: Ranges) -> Iterator[Reference]:
    """What an adrp and the uses of its register lead to; a page that lies in payloads alone is a reference without a use, too."""
    register, used = words[index] & 31, False
    for following in words[index + 1 : index + 1 + _WINDOW]:
        if following >> 24 & 0x1F == 0x10 and following & 31 == register:
            return  # another adr or adrp sets the register
        if following >> 5 & 31 != register:
            continue
        inside, name = _offset(following)
        if inside is None:
            continue
        used = True
        if page + inside in ranges:
            yield Reference(place, page + inside, f"the instructions 'adrp' and '{name}'")
            return
        if following & 31 == register and following >> 23 == 0x122:
            break
    if not used and ranges.covers(page, page + _PAGE) and _in_function(program, place):
        yield Reference(place, page, "the instruction 'adrp'")


def _offset(word: int) -> tuple[int | None, str]:
    """What an instruction adds to its base register before it uses it, and its name; None for any other instruction."""
    if word >> 23 == 0x122:
        return (word >> 10 & 0xFFF) << 12 * (word >> 22 & 1), "add"
    if word & 0x3B000000 == 0x39000000:  # load or store, unsigned offset
        scale = 4 if word >> 26 & 1 and word >> 23 & 1 and not word >> 30 else word >> 30
        return (word >> 10 & 0xFFF) << scale, "ldr" if word >> 22 & 3 else "str"
    if word & 0x3B000000 == 0x29000000:  # load or store of a pair, signed offset
        vector = word >> 26 & 1
        scale = 2 + (word >> 30) if vector else 2 + (word >> 31)
        return _signed(word >> 15 & 0x7F, 7) << scale, "ldp"
    return None, ""


def _in_function(program: Program, place: int) -> bool:
    """Whether unwind tables know functions, so that words of data between them are not taken for code."""
    functions = program.functions()
    return bool(functions) and functions[0] <= place


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
