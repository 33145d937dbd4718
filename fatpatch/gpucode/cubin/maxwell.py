"""Machine code of sm_50 to sm_62 as far as control flow needs it (reference: stubs, encodings; checked against nvdisasm).

Bundles of 32 bytes: a control word, then three instructions of 64 bits. An instruction is numbered by its word, so every
fourth number is a control word. Opcode: bits 63 to 48.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable

from fatpatch.gpucode import flow

WORD = 8
_CONTROL = {
    0xE240: flow.BRANCH, 0xE260: flow.CALL, 0xE320: flow.RETURN, 0xE300: flow.EXIT, 0xE330: flow.EXIT, 0xE3A0: flow.TRAP,
    0xE250: flow.OPAQUE, 0xE210: flow.OPAQUE, 0xE200: flow.INDIRECT, 0xE220: flow.CALL_OUT,
    0xE290: flow.PUSH, 0xE2A0: flow.PUSH, 0xE2B0: flow.PUSH, 0xE270: flow.PUSH_RETURN,
    0xF0F8: flow.POP, 0xE340: flow.POP, 0xE350: flow.POP,
}  # fmt: skip
"""BRA, CAL, RET, EXIT, KIL, BPT; BRX, JMP, JMX, JCAL; SSY, PBK, PCNT, PRET; SYNC, BRK, CONT."""

_EFFECTS = ((0xEED8, 0xEEDF), (0xA000, 0xBFFF), (0xEBF8, 0xEBFF), (0xEB20, 0xEB5F))  # STG, ST, RED, SUST and SURED
_LOAD_EFFECTS = ((0xED00, 0xEDFF), (0xEEF0, 0xEEFF), (0xEA00, 0xEAFF))  # ATOM, ATOM.CAS, SUATOM
_LOADS = ((0xEED0, 0xEED7), (0x8000, 0x9FFF), (0xC000, 0xDFFF), (0xEB00, 0xEB1F))  # LDG, LD, TEX, SULD
_NO_GUARD = frozenset({flow.TRAP, flow.CALL, flow.CALL_OUT, flow.PUSH, flow.PUSH_RETURN})
_TRAP_SUBTYPE = 3
_MOV_CONSTANT = 0x4C98 >> 3
"""MOV from a constant bank: bits 63 to 51."""


@functools.lru_cache(maxsize=1)
def _kinds() -> bytes:
    table = bytearray(1 << 16)
    for ranges, kind in ((_EFFECTS, flow.EFFECT), (_LOAD_EFFECTS, flow.LOAD_EFFECT), (_LOADS, flow.LOAD)):
        for low, high in ranges:
            table[low : high + 1] = bytes([kind]) * (high + 1 - low)
    for opcode, kind in _CONTROL.items():
        table[opcode] = kind
    return bytes(table)


def is_real(code: bytes) -> bool:
    """Whether a section has a store to global memory and no trap: real without a walk, and that is nearly all of them."""
    halves = _halves(code)
    table = _kinds()
    present = {table[opcode] for opcode in {*halves[7::16], *halves[11::16], *halves[15::16]}}
    return flow.TRAP not in present and (flow.EFFECT in present or flow.LOAD_EFFECT in present)


def shape(code: bytes) -> bytes:
    """The opcodes alone: equal for bodies that differ in operands only, such as the line number of a message."""
    halves = _halves(code)
    return b"".join(part.tobytes() for part in (halves[7::16], halves[11::16], halves[15::16]))


def constants(code: bytes) -> Iterable[int]:
    """Offsets in constant bank 4 that instructions name (MOV and others with a c[4][x] operand)."""
    for index, word in enumerate(_words(code)):
        if index % 4 and word >> 34 & 0x1F == 4 and word >> 60 == 4:
            yield (word >> 20 & 0x3FFF) * 4


class MaxwellSection:
    """The instructions of one .text section, as a ``flow.Program``."""

    __slots__ = ("_words", "controls", "kinds")

    def __init__(self, code: bytes, arch: int = 50) -> None:  # they are all encoded alike
        self._words = _words(code)
        kinds = bytearray(map(_kinds().__getitem__, _halves(code)[3::4]))
        kinds[0::4] = bytes(len(kinds[0::4]))
        for at in _all(kinds, flow.TRAP):
            if self._words[at] >> 6 & 7 != _TRAP_SUBTYPE:
                kinds[at] = flow.PLAIN
        self.kinds = bytes(kinds)
        self.controls = flow.controls_of(self.kinds)

    def targets(self, at: int) -> tuple[int, ...] | None:
        offset = self._words[at] >> 20 & 0xFFFFFF
        offset -= (offset & 0x800000) << 1
        target = at + 1 + offset // WORD
        if target % 4 == 0:
            target += 1  # the start of a bundle is its control word
        return (target,) if offset % WORD == 0 and 0 <= target < len(self.kinds) else None

    def conditional(self, at: int) -> bool:
        if self.kinds[at] in _NO_GUARD:
            return False
        word = self._words[at]
        return word >> 16 & 0xF != 7 or word & 0x1F != 0xF

    def stores_parameter(self, start: int, end: int) -> bool:
        """Whether a store's data register was last set by a MOV from the constant bank of the parameters."""
        filled = set[int]()
        for at in range(start, end):
            word = self._words[at]
            if at % 4 == 0:
                continue  # a control word
            if self.kinds[at] == flow.EFFECT:
                if word & 0xFF in filled:
                    return True
            elif word >> 51 == _MOV_CONSTANT and word >> 34 & 0x1F == 0:
                filled.add(word & 0xFF)
            else:
                filled.discard(word & 0xFF)
        return False

    def index_of(self, offset: int) -> int:
        """The instruction at a byte offset of the section."""
        at = offset // WORD
        return at + 1 if at % 4 == 0 else at


def _halves(code: bytes) -> array[int]:
    return array("H", code[: len(code) // 32 * 32])


def _words(code: bytes) -> array[int]:
    return array("Q", code[: len(code) // 32 * 32])


def _all(kinds: bytearray, kind: int) -> Iterable[int]:
    at = kinds.find(kind)
    while at >= 0:
        yield at
        at = kinds.find(kind, at + 1)


SECTION = MaxwellSection
"""How machine code of this kind becomes a program."""
