"""Instructions that name an address relative to the next instruction: ``lea``, ``call``, and jumps through a slot.

A pass over all of the code costs milliseconds a megabyte, since the high bytes of the distance are known: within one piece every
distance to a narrow range of targets shares them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.code import HostCode, pieces
from fatpatch.model.tree import Section


class Form(NamedTuple):
    """An instruction that ends in a 32-bit distance: its bytes before the distance, as a pattern, and their number."""

    pattern: bytes
    size: int


LEA: Final = Form(rb"\x8d(?<=[\x48\x4c]\x8d)[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", 2)
"""``lea r64, [rip+x]``; a hit starts behind the REX prefix."""
CALL: Final = Form(rb"\xe8", 1)
CALL_SLOT: Final = Form(rb"\xff\x15", 2)
JUMP_SLOT: Final = Form(rb"\xff\x25", 2)
_DISTANCE: Final = struct.Struct("<i")
_CONSTANT: Final = Form(rb"[\xb8-\xbf]", 1)


class CodeReference(NamedTuple):
    """Where an instruction starts, where it ends, and the address it names."""

    start: int
    end: int
    target: int


def references(host: HostCode, form: Form, low: int, high: int, parts: tuple[Section, ...] | None = None) -> Iterator[CodeReference]:
    """The instructions of a form whose target lies in [low, high), in address order of each range.

    They are found by their bytes alone: some may lie inside other instructions.
    """
    distance, size = _DISTANCE.unpack_from, form.size
    for piece in pieces(host, host.code if parts is None else parts):
        pattern = _pattern(form, low - (piece.address + len(piece.data)), high - 1 - piece.address)
        if pattern is None:
            continue
        data, base = piece.data, piece.address + size + 4
        lowest, highest = low - base, high - base
        hits = [  # of calls of one function most are calls of its neighbours
            at for found in pattern.finditer(data) if lowest <= distance(data, (at := found.start()) + size)[0] + at < highest
        ]
        for at in hits:
            if piece.first <= at < piece.last:
                yield CodeReference(piece.address + at, base + at, base + at + distance(data, at + size)[0])


def constants(host: HostCode, low: int, high: int) -> Iterator[CodeReference]:
    """``mov r32, imm32`` with an address in [low, high): how code names an address in a file that is never moved."""
    pattern = _pattern(_CONSTANT, low, high - 1) if host.fixed else None
    for piece in pieces(host, host.code) if pattern is not None else ():
        for found in pattern.finditer(piece.data) if pattern is not None else ():
            at = found.start()
            target = int.from_bytes(piece.data[at + 1 : at + 5], "little")
            if piece.first <= at < piece.last and low <= target < high:
                yield CodeReference(piece.address + at, piece.address + at + 5, target)


def _pattern(form: Form, lowest: int, highest: int) -> re.Pattern[bytes] | None:
    """Matches the form with any distance that can lie in [lowest, highest]; None when none fits in 32 bits.

    The distance is only looked at, so that a wrong hit never hides a right one inside it.
    """
    lowest, highest = max(lowest, -(1 << 31)), min(highest, (1 << 31) - 1)
    if lowest > highest:
        return None
    tops = range(lowest >> 24, (highest >> 24) + 1)
    thirds = range(lowest >> 16, (highest >> 16) + 1) if len(tops) == 1 else range(256)
    return re.compile(form.pattern + b"(?=.." + _any_of(thirds) + _any_of(tops) + b")", re.DOTALL)


def _any_of(values: range) -> bytes:
    if len(values) >= 256:
        return b"."
    return b"[" + b"".join(rb"\x%02x" % (value & 0xFF) for value in values) + b"]"
