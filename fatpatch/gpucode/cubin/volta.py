"""Machine code of sm_70 to sm_121 as far as control flow needs it (reference: stubs, encodings; checked against nvdisasm).

Instructions of 16 bytes. Opcode: bits 11 to 0, of which the low 9 name the instruction and the others the form of its operands.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable

from fatpatch.base.patterns import lazy_pattern
from fatpatch.gpucode import flow

WIDTH = 16
_TRAP, _TRAP_SUBTYPE = 0x95C, 3
_CONTROL = {
    0x947: flow.BRANCH, 0x547: flow.BRANCH, 0x944: flow.CALL, 0x344: flow.CALL_OUT, 0x343: flow.CALL_OUT, 0x943: flow.CALL_OUT,
    0x950: flow.RETURN, 0x94D: flow.EXIT, 0x95B: flow.EXIT, _TRAP: flow.TRAP,
    0x949: flow.OPAQUE, 0x958: flow.OPAQUE, 0x94A: flow.OPAQUE, 0x94C: flow.OPAQUE,
    0x945: flow.PUSH, 0x941: flow.POP,
}  # fmt: skip
"""BRA, BRA.U, CALL.REL, CALL through a register, CALL.ABS; RET, EXIT, KILL, BPT; BRX, BRXU, JMP, JMX; BSSY, BSYNC."""

_EFFECTS = (0x186, 0x185, 0x18E, 0x1A6, 0x19D, 0x1BD, 0x1BE, 0x1BA, 0x1BB, 0x1B5, 0x1B6)
"""STG, ST, RED, REDG, SUST; from sm_90 on STAS, REDAS, UBLKCP, UBLKRED, UTMASTG, UTMAREDG."""
_LOAD_EFFECTS = (0x18A, 0x18B, 0x19F, 0x1A0, 0x1A2, 0x1A3, 0x1A4, 0x1A5, 0x1A8, 0x1A9)
"""ATOM, ATOM.CAS, SURED, ATOMG on floats and integers, ATOMG.CAS; of their block the codes that were never seen count, too."""
_LOADS = (0x181, 0x180, 0x1AE, 0x160, 0x161, 0x166, 0x199, 0x1B4)  # LDG, LD, LDGSTS, TEX, SULD, UTMALDG
_LDCU, _LDGSTS = 0x7AC, 0x1AE
_STORES = frozenset({0x186, 0x185})  # STG, ST: the register with the data is in bits 39 to 32
_FROM_CONSTANT = frozenset({0xA02, 0x624, 0xA24, 0xB82})  # MOV, IMAD.MOV in two forms, LDC
_FROM_UNIFORM = frozenset({0xC02, 0xC24})  # MOV and IMAD.U32 of a uniform register
_UNIFORM_LOADS = frozenset({0xAB9, _LDCU})  # ULDC, LDCU
_WIDE_OFFSETS_FROM = 90
_SECOND_PREDICATE = frozenset({flow.BRANCH, flow.EXIT, flow.RETURN})


_MAYBE_CONTROL = 0xFF
"""In place of a kind: the lower byte is that of an instruction that transfers control."""
_NAMED = bytes(0xFF * (high & 1) for high in range(256))
"""By bits 15 to 8: all that has a kind has bit 8 set."""
_MAYBE = lazy_pattern(rb"\xff")


@functools.lru_cache(maxsize=1)
def _kinds() -> bytes:
    """By bits 7 to 0, where bit 8 is set: memory instructions have a kind whatever the form of their operands."""
    table = bytearray(1 << 8)
    for codes, kind in ((_EFFECTS, flow.EFFECT), (_LOAD_EFFECTS, flow.LOAD_EFFECT), (_LOADS, flow.LOAD)):
        for code in codes:
            table[code & 0xFF] = kind
    for opcode in _CONTROL:
        table[opcode & 0xFF] = _MAYBE_CONTROL
    return bytes(table)


def is_real(code: bytes) -> bool:
    """Whether a section has a store to global memory and no trap: real without a walk, and that is nearly all of them."""
    code = code[: len(code) // WIDTH * WIDTH]
    low, high = code[::WIDTH], code[1::WIDTH]  # bits 7 to 0 and 15 to 8 of each instruction
    return not _occurs(low, high, _TRAP, 0xF) and any(_occurs(low, high, code, 1) for code in (*_EFFECTS, *_LOAD_EFFECTS))


def copies_ahead(code: bytes) -> bool:
    """Whether a section copies from global to shared memory while it computes (LDGSTS, ``cp.async``), as GPUs do from 8.0 on."""
    code = code[: len(code) // WIDTH * WIDTH]
    return _occurs(code[::WIDTH], code[1::WIDTH], _LDGSTS, 1)


def _occurs(low: bytes, high: bytes, opcode: int, mask: int) -> bool:
    """Whether some instruction has an opcode; ``mask``: the bits of its high byte that count."""
    wanted, at = opcode >> 8, low.find(opcode & 0xFF)
    while at >= 0 and high[at] & mask != wanted:
        at = low.find(opcode & 0xFF, at + 1)
    return at >= 0


def shape(code: bytes) -> bytes:
    """Opcodes and guards alone: equal for bodies that differ in operands only, such as the line number of a message."""
    return _halves(code)[::8].tobytes()


def constants(code: bytes) -> Iterable[int]:
    """Offsets in constant bank 4 that instructions name (LDC, ULDC, MOV with a c[4][x] operand; LDCU from sm_100 on)."""
    for word in _words(code)[::2]:
        if word >> 54 & 0x1F == 4:
            yield word >> (37 if word & 0xFFF == _LDCU else 38) & 0xFFFF


class VoltaSection:
    """The instructions of one .text section, as a ``flow.Program``; ``arch`` is its SM number."""

    __slots__ = ("_wide", "_words", "controls", "kinds")

    def __init__(self, code: bytes, arch: int) -> None:
        self._words = _words(code)
        self._wide = arch >= _WIDE_OFFSETS_FROM
        code = code[: len(code) // WIDTH * WIDTH]
        low, high = code[::WIDTH], code[1::WIDTH]
        named = int.from_bytes(low.translate(_kinds()), "little") & int.from_bytes(high.translate(_NAMED), "little")
        kinds = bytearray(named.to_bytes(len(low), "little"))  # all at once: several times as fast as one by one
        self.controls = []
        for found in _MAYBE.finditer(bytes(kinds)):
            at = found.start()
            kind = _CONTROL.get((high[at] & 0xF) << 8 | low[at], flow.PLAIN)
            if kind == flow.TRAP and self._words[2 * at + 1] >> 20 & 7 != _TRAP_SUBTYPE:
                kind = flow.PLAIN
            kinds[at] = kind
            if kind:
                self.controls.append(at)
        self.kinds = bytes(kinds)

    def targets(self, at: int) -> tuple[int, ...] | None:
        low, high = self._words[2 * at], self._words[2 * at + 1]
        if self.kinds[at] == flow.PUSH:
            offset = _signed(low >> 32, 32)
        elif self._wide:
            offset = (_signed((high & 0x3FFFF) << 30 | low >> 34, 48) << 8 | low >> 16 & 0xFF) * 4
        else:
            offset = _signed((high & 0x3FFFF) << 32 | low >> 32, 50) & ~3
        target = at + 1 + offset // WIDTH
        return (target,) if offset % WIDTH == 0 and 0 <= target < len(self.kinds) else None

    def conditional(self, at: int) -> bool:
        low, high = self._words[2 * at], self._words[2 * at + 1]
        kind = self.kinds[at]
        if low >> 12 & 0xF != 7:
            return True
        if kind == flow.BRANCH and low >> 32 & 3:
            return True
        return kind in _SECOND_PREDICATE and high >> 23 & 0xF != 7

    def stores_parameter(self, start: int, end: int) -> bool:
        """Whether a store's data register was last set from constant bank 0, by a MOV or LDC or through a uniform register."""
        filled, uniform = set[int](), set[int]()
        for at in range(start, end):
            low = self._words[2 * at]
            opcode, target, source = low & 0xFFF, low >> 16 & 0xFF, low >> 32 & 0xFF
            if opcode in _UNIFORM_LOADS:
                (uniform.add if low >> 54 & 0x1F == 0 else uniform.discard)(target)
            elif (opcode in _FROM_CONSTANT and low >> 54 & 0x1F == 0) or (opcode in _FROM_UNIFORM and source in uniform):
                filled.add(target)
            elif low & 0x1FF not in _STORES:
                filled.discard(target)
            elif source in filled:
                return True
        return False

    def index_of(self, offset: int) -> int:
        """The instruction at a byte offset of the section."""
        return offset // WIDTH


def _signed(value: int, bits: int) -> int:
    return value - ((value & 1 << (bits - 1)) << 1)


def _halves(code: bytes) -> array[int]:
    return array("H", code[: len(code) // WIDTH * WIDTH])


def _words(code: bytes) -> array[int]:
    return array("Q", code[: len(code) // WIDTH * WIDTH])


SECTION = VoltaSection
"""How machine code of this kind becomes a program."""
