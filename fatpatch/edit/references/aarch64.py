"""Instructions of aarch64 that name an address: adr, adrp with what uses its register, loads from a literal, movz with movk.

Facts: Arm Architecture Reference Manual, ADR, ADRP, ADD (immediate), LDR (literal), loads and stores with an unsigned offset, MOVZ,
MOVK, branches; AAPCS64 for the registers that a call leaves alone.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.source import CHUNK
from fatpatch.edit.references.aarch64_steps import led_on
from fatpatch.edit.references.lanes import words_with
from fatpatch.edit.references.program import LinkedProgram, Part, PayloadReference, Ranges

_PAGE = 0x1000
_ADDRESSES = lazy_pattern(rb"[\x10\x30\x50\x70\x90\xb0\xd0\xf0\x18\x58\x98\xd8\x1c\x5c\x9c]")
"""The highest byte of adr and adrp, and of loads and prefetches from a literal."""
_WINDOW = 1 << 14
"""Instructions around an adrp among which the use of its register is looked for, in the same function."""
_LARGE = 1 << 20
"""Bytes of code in which not every constant is looked at: most of the time, and no compiler adds one to an address."""
_HALVES = dict.fromkeys((0x52, 0x72, 0xD2, 0xF2), (1 << 0xC0) - (1 << 0xA0))
"""Upper halves of movz and movk with lsl 16, by the fourth byte the third bytes."""
_ADDED, _ADDED_LEAST = dict.fromkeys((0x91, 0xD1), (1 << 0x80) - (1 << 0x40)), 16
"""The same of add and sub with lsl 12; and the constant that makes 64 KiB."""
_KEPT = 0x3FF80000
"""Registers that a call leaves alone: x19 to x29."""


def instructions(program: LinkedProgram, ranges: Ranges) -> Iterator[PayloadReference]:
    """The instructions that lead into ``ranges``."""
    for part in program.parts:
        if part.code:
            lead = -part.address % 4
            for start in range(lead, part.size, CHUNK):
                data = program.source.peek(part.offset + start, min(CHUNK + 4 * _WINDOW, part.size - start))
                yield from _found(program, part, data[: len(data) & ~3], part.address + start, ranges)


def _found(program: LinkedProgram, part: Part, data: bytes, address: int, ranges: Ranges) -> Iterator[PayloadReference]:
    words = struct.unpack(f"<{len(data) // 4}I", data)
    yield from _stepped(program, data, words, address, ranges, sums=part.size <= _LARGE)
    for hit in _ADDRESSES.finditer(data[3::4]):
        index = hit.start()
        word, place = words[index], address + 4 * index
        if word >> 24 & 0x1B == 0x18:  # a load from a literal
            target = place + 4 * _signed(word >> 5 & 0x7FFFF, 19)
            if target in ranges:
                yield PayloadReference(place, target, "the instruction 'ldr'")
            continue
        distance = _signed((word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2, 21)
        target = place + distance if not word >> 31 else (place & ~(_PAGE - 1)) + (distance << 12)
        if not word >> 31 and target in ranges:
            yield PayloadReference(place, target, "the instruction 'adr'")
        elif ranges.near(target):
            led = led_on(words, index, address, lambda value, constant: not constant and value in ranges)
            if led is not None:
                yield PayloadReference(place, led, f"the instruction '{'adrp' if word >> 31 else 'adr'}'")
        if word >> 31 and target + _PAGE > ranges.low and target < ranges.high:
            yield from _paged(program, words, index, place, target, ranges)


def _stepped(
    program: LinkedProgram, data: bytes, words: Sequence[int], address: int, ranges: Ranges, *, sums: bool
) -> Iterator[PayloadReference]:
    """What constants of 64 KiB or more lead to: added to an address or, in a program at a fixed address, by themselves."""
    tops = range((ranges.low >> 16) - 1, (ranges.high >> 16) + 2) if program.fixed and ranges.high < 1 << 32 else range(0)

    def wanted(value: int, constant: bool) -> bool:
        return value in ranges and (not constant or (bool(tops) and (ranges.label(value) or ranges.in_head(value))))

    for index in words_with(data, _ADDED | _HALVES if sums or tops else _ADDED):
        word = words[index]
        half = not word >> 24 & 1
        if (half and not sums and word >> 5 & 0xFFFF not in tops) or (not half and (word >> 10 & 0xFFF < _ADDED_LEAST or word & 31 == 31)):
            continue
        name = "the instructions 'movz' and 'movk'" if half else "the instructions 'adrp' and 'add'"
        led = led_on(words, index, address, wanted)
        if led is not None:
            yield PayloadReference(address + 4 * index, led, name)


def _paged(program: LinkedProgram, words: Sequence[int], index: int, place: int, page: int, ranges: Ranges) -> Iterator[PayloadReference]:
    """What an adrp and the uses of its register lead to; a page that lies in payloads alone is a reference without a use, too."""
    taken = False
    for inside, name in _uses(words, index):
        taken = taken or inside is None
        if inside is not None and page + inside in ranges:
            yield PayloadReference(place, page + inside, f"the instructions 'adrp' and '{name}'")
            return
    if taken and ranges.covers(page, page + _PAGE) and _in_function(program, place):
        yield PayloadReference(place, page, "the instruction 'adrp'")


def _uses(words: Sequence[int], index: int) -> Iterator[tuple[int | None, str]]:
    """What uses the page of the adrp at ``index``, wherever control takes its register.

    (offset, name) of an instruction that adds an offset to it; None for one that uses it as it is, or for the end of the function.
    """
    low, high = max(index - _WINDOW, 0), min(index + _WINDOW, len(words))
    holding = {index + 1: 1 << (words[index] & 31)}
    todo = [index + 1]
    while todo:
        at = todo.pop()
        if not low <= at < high:
            yield None, ""
            continue
        word, held = words[at], holding[at]
        inside, name = _offset(word)
        if inside is not None and held >> (word >> 5 & 31) & 1:
            yield inside, name
        elif held >> (word >> 5 & 31) & 1 and _reads(word) and not _moves(word):
            yield None, ""
        after = _held(word, held)
        if not after:
            continue
        following_ones = tuple(_next(word, at))
        if not following_ones:
            yield None, ""
        for following in following_ones:
            if after & ~holding.get(following, 0):
                holding[following] = holding.get(following, 0) | after
                todo.append(following)


def _held(word: int, held: int) -> int:
    """The registers that hold the page after an instruction, as a set of bits; what may set a register in another way is known in part."""
    target, first, second = word & 31, word >> 5 & 31, word >> 16 & 31
    if word >> 26 == 0x25 or word & 0xFFFFFC1F == 0xD63F0000:  # bl, blr
        return held & _KEPT
    if _moves(word):
        moved = held >> second & 1 or (held >> first & 1 and first != 31)
        return held | 1 << target if moved else held & ~(1 << target)
    if word >> 24 & 0x1C == 0x10 or word & 0x1F000000 == 0x0A000000:  # constants and addresses; logical of registers
        return held & ~(1 << target)
    if word & 0x3B400000 == 0x39400000 or word & 0x3B000000 == 0x18000000:  # loads into general registers
        return held & ~(1 << target) if not word >> 26 & 1 else held
    return held


def _reads(word: int) -> bool:
    """Whether bits 9 to 5 of an instruction name a register that it reads: not those of an address, a wide constant or a branch."""
    if word >> 26 & 7 == 5:
        return word >> 25 == 0x6B  # to a register
    return word >> 24 & 0x1F != 0x10 and word >> 23 & 0x3F != 0x25 and word & 0x3B000000 != 0x18000000


def _moves(word: int) -> bool:
    """Whether an instruction is a mov or an add of registers."""
    return word & 0xFFE0FFE0 == 0xAA0003E0 or word & 0x7F200000 == 0x0B200000 or word & 0x7F000000 == 0x0B000000


def _next(word: int, at: int) -> Iterator[int]:
    """Where control goes from an instruction, as indices; a call comes back."""
    if word >> 26 == 0x05:  # b
        yield at + _signed(word & 0x3FFFFFF, 26)
        return
    if word & 0xFE9FF800 == 0xD61F0000 and word & 0xFFFFFC1F != 0xD63F0000:  # br, ret
        return
    if word >> 24 == 0x54 or word >> 25 & 0x3F == 0x1A:  # b.cond, cbz, cbnz
        yield at + _signed(word >> 5 & 0x7FFFF, 19)
    elif word >> 25 & 0x3F == 0x1B:  # tbz, tbnz
        yield at + _signed(word >> 5 & 0x3FFF, 14)
    yield at + 1


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


def _in_function(program: LinkedProgram, place: int) -> bool:
    """Whether unwind tables know functions, so that words of data between them are not taken for code."""
    functions = program.functions()
    return bool(functions) and functions[0] <= place


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
