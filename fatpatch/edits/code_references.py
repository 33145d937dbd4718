"""What machine code takes the address of by itself, without a pointer in data or a relocation that would say so.

Facts: Intel SDM volume 2, LEA; Arm ARM, ADR, ADRP and ADD (immediate).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from fatpatch.errors import FormatError
from fatpatch.formats import numbers as n
from fatpatch.source import CHUNK, Source

Segment = tuple[int, int, int]
"""Code: file offset, size, address."""
Reference = tuple[int, int]
"""Where the instruction is, and the address that it makes."""

_LEA = rb"\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?<=[\x48\x4c]..)"  # from its second byte on, which is searched eight times as fast
_LEA_SIZE = 7
_ADR = re.compile(rb"[\x10\x30\x50\x70\x90\xb0\xd0\xf0]")  # the highest byte of adr and adrp
_WINDOW = 16
"""Instructions behind an adrp among which its add is looked for; compilers put it beside it, or a few others between."""


def code_references(source: Source, machine: int, segments: Sequence[Segment], low: int, high: int, locator: str) -> Iterator[Reference]:
    """The addresses in [low, high) that code makes from its own place; ``machine``: EM_X86_64, or else EM_AARCH64.

    FormatError when the segments are larger than the file, so that they lie over each other or outside.
    """
    if low >= high:
        return
    if sum(size for _, size, _ in segments) > source.size:
        raise FormatError("its code lies over itself or outside the file", locator=locator, field="section size")
    read, overlap = (_x86, _LEA_SIZE - 1) if machine == n.EM_X86_64 else (_aarch64, 4 * _WINDOW)
    for offset, size, address in segments:
        for start in range(0, size, CHUNK):
            data = source.peek(offset + start, min(CHUNK + overlap, size - start))
            yield from ((place, value) for place, value in read(data, address + start, low, high) if low <= value < high)


def _x86(data: bytes, address: int, low: int, high: int) -> Iterator[Reference]:
    """``lea reg, [rip + n]``; the expression passes only an n whose upper half can lead there, so that few matches are looked at."""
    first = max(low - address - len(data) - _LEA_SIZE, -1 << 31) >> 16
    last = min(high - address, (1 << 31) - 1) >> 16
    upper = b"|".join([*_halves(first, min(last, -1)), *_halves(max(first, 0), last)])
    if not upper:
        return
    for found in re.finditer(_LEA + b"(?=(..(?:" + upper + b")))", data, re.DOTALL):  # looking ahead, overlapping matches count
        place = address + found.start() - 1
        yield place, place + _LEA_SIZE + int.from_bytes(found[1], "little", signed=True)


def _halves(first: int, last: int) -> Iterator[bytes]:
    """Expressions for the 16-bit numbers first to last, both of one sign, as two bytes, the lower one first."""
    while first <= last:
        page, low = first >> 8, first & 0xFF
        if low or last >> 8 == page:
            end = min(last, page << 8 | 0xFF)
            pages = page, page
        else:
            full = (last + 1 >> 8) - 1
            end, pages = full << 8 | 0xFF, (page, full)
        yield rb"[\x%02x-\x%02x][\x%02x-\x%02x]" % (low, end & 0xFF, pages[0] & 0xFF, pages[1] & 0xFF)
        first = end + 1


def _aarch64(data: bytes, address: int, low: int, high: int) -> Iterator[Reference]:
    """``adr reg, n``, and ``adrp reg, page`` with an ``add`` of its register behind it."""
    lead = -address % 4
    data, address = data[lead : lead + (len(data) - lead & ~3)], address + lead
    words = struct.unpack(f"<{len(data) // 4}I", data)
    for found in _ADR.finditer(data[3::4]):
        index = found.start()
        word, place = words[index], address + 4 * index
        distance = (word >> 29 & 3) | (word >> 5 & 0x7FFFF) << 2
        distance -= (distance & 1 << 20) << 1
        if not word >> 31:
            yield place, place + distance
            continue
        for following in words[index + 1 : index + 1 + _WINDOW]:
            if following >> 24 & 0x1F == 0x10 and following & 31 == word & 31:
                break  # another adr or adrp makes the register anew
            if following >> 23 == 0x122 and following >> 5 & 31 == word & 31:
                shifted = 12 * (following >> 22 & 1)
                yield place, (place & ~0xFFF) + (distance << 12) + ((following >> 10 & 0xFFF) << shifted)
                if following & 31 == word & 31:
                    break
