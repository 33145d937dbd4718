"""Where instructions of x86-64 begin and end, and where their displacements and constants lie: enough to tell that a field is none.

A table decides by the opcode (Intel SDM volume 2, appendix A); what it does not know is left to a disassembler. A disassembler takes
longer to import than this takes for all the coincidences of a large library.
"""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.records import NamedTuple

_PREFIXES = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3") | frozenset(range(0x40, 0x50))
_LEAVING = frozenset(b"\xc3\xe8\xe9\xeb")
_LONGEST = 15
_IN_STEP = 48
_WIDE = 15
"""What stands for 4 bytes, or 2 with the prefix 66, or 8 for mov with REX.W."""
_OPERAND, _UNKNOWN = 16, 32
"""Flags of an opcode: it has a ModRM byte; it is not known here. The rest is the number of bytes of its constant."""


def _table(operand: str, constants: dict[int, str], unknown: str, plain: int) -> bytes:
    """A byte of flags for each opcode. The strings are opcodes and ranges of them in hexadecimal."""
    flags = bytearray([plain]) * 256
    for chosen in _opcodes(operand):
        flags[chosen] = _OPERAND
    for size, text in constants.items():
        for chosen in _opcodes(text):
            flags[chosen] += size
    for chosen in _opcodes(unknown):
        flags[chosen] = _UNKNOWN
    return bytes(flags)


def _opcodes(text: str) -> list[int]:
    spans = [part.split("-") for part in text.split()]
    return [opcode for span in spans for opcode in range(int(span[0], 16), int(span[-1], 16) + 1)]


_ONE = _table(
    "00-03 08-0b 10-13 18-1b 20-23 28-2b 30-33 38-3b 63 69 6b 80-81 83-8e c0-c1 c6-c7 d0-d3 d8-df f6-f7 fe-ff",
    {
        1: "04 0c 14 1c 24 2c 34 3c 6a 6b 70-7f 80 83 a8 b0-b7 c0 c1 c6 cd e0-e7 eb",
        2: "c2 ca",
        3: "c8",
        8: "a0-a3",
        _WIDE: "05 0d 15 1d 25 2d 35 3d 68 69 81 a9 b8-bf c7 e8 e9",
    },
    "06 07 0e 16 17 1e 1f 27 2f 37 3f 60-62 82 8f 9a c4 c5 ce d4-d6 ea",
    0,
)
_TWO = _table(
    "00-03 0d 10-1f 28-2f 40-76 78-79 7c-7f 90-9f a3-a5 ab-c7 d0-fe",
    {1: "70-73 a4 ac ba c2 c4-c6", _WIDE: "80-8f"},
    "04 0a 0c 0f 20-27 36 38-3f 7a 7b a6 a7 b9 ff",
    0,
)
_VECTOR = _table("00-76 78-ff", {1: "70-73 c2 c4-c6"}, "", 0)
_SIMPLE, _CONSTANT = bytes([_OPERAND]) * 256, bytes([_OPERAND + 1]) * 256
_MAPS = {1: _VECTOR, 2: _SIMPLE, 3: _CONSTANT, 5: _SIMPLE, 6: _SIMPLE}
"""The opcode maps of VEX and EVEX."""


class Instruction(NamedTuple):
    """Offsets: where it begins and ends, and where its displacement and its constant begin; -1 for none."""

    start: int
    end: int
    displacement: int
    constant: int

    def moved(self, by: int) -> Instruction:
        """The same with all offsets so much higher."""
        return Instruction(*(each + by if each >= 0 else each for each in self))


def instruction_at(code: bytes, start: int, field: int) -> Instruction | None:
    """The instruction that the byte at ``field`` belongs to, decoding from ``start`` on; None where one close before is not known.

    Farther before, decoding goes on a byte behind what is not known: it falls into step with the instructions again.
    """
    at = start
    while at <= field:
        found = _decoded(code, at)
        if found is None:
            if field - at < _IN_STEP:
                return None
            at += 1
        elif found.end > field:
            return found
        else:
            at = found.end
    return None


def fields_behind(code: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset, size) of the displacements and constants in [start, end), up to a call, a jump, or an instruction that is not known."""
    while start < end and (found := _decoded(code, start)) is not None and code[start] not in _LEAVING:
        if found.displacement >= 0:
            yield found.displacement, (found.end if found.constant < 0 else found.constant) - found.displacement
        if found.constant >= 0:
            yield found.constant, found.end - found.constant
        start = found.end


def _decoded(code: bytes, start: int) -> Instruction | None:
    at, rex, short = start, 0, False
    try:
        while code[at] in _PREFIXES:
            rex = code[at] if code[at] & 0xF0 == 0x40 else 0  # that counts right before the opcode alone
            short = short or code[at] == 0x66
            if code[at] == 0x67:
                return None
            at += 1
        opcode = code[at]
        flags = _ONE[opcode]
        if opcode == 0x0F:
            at, flags = _escaped(code, at + 1)
        elif opcode in (0xC4, 0xC5, 0x62):
            at, flags = _vector(code, at)
        if flags & _UNKNOWN:
            return None
        at += 1
        constant = flags & 15
        displacement = -1
        if flags & _OPERAND:
            operand = code[at]
            if opcode in (0xF6, 0xF7) and operand & 0x30 == 0:
                constant = 1 if opcode == 0xF6 else _WIDE
            at, size = _operand(code, at)
            displacement = at if size else -1
            at += size
        if constant == _WIDE:
            if short and opcode in (0xE8, 0xE9, 0x0F):
                return None
            constant = 8 if rex & 8 and 0xB8 <= opcode < 0xC0 else 2 if short and not rex & 8 else 4
    except IndexError:
        return None
    end = at + constant
    return Instruction(start, end, displacement, at if constant else -1) if end - start <= _LONGEST else None


def _escaped(code: bytes, at: int) -> tuple[int, int]:
    """Where the opcode behind 0F is, and its flags."""
    if code[at] == 0x38:
        return at + 1, _OPERAND
    if code[at] == 0x3A:
        return at + 1, _OPERAND + 1
    return at, _TWO[code[at]]


def _vector(code: bytes, at: int) -> tuple[int, int]:
    """The same behind a prefix of VEX or EVEX."""
    if code[at] == 0xC5:
        return at + 2, _VECTOR[code[at + 2]]
    evex = code[at] == 0x62
    table = _MAPS.get(code[at + 1] & (7 if evex else 31))
    behind = at + (4 if evex else 3)
    return behind, _UNKNOWN if table is None else table[code[behind]]


def _operand(code: bytes, at: int) -> tuple[int, int]:
    """Where the displacement of an operand with the ModRM byte at ``at`` would begin, and its size."""
    mod, base = code[at] >> 6, code[at] & 7
    if mod == 3:
        return at + 1, 0
    if base == 4:
        at += 1
        base = code[at] & 7
    return at + 1, (4 if base == 5 else 0, 1, 4)[mod]
