"""Addresses that x86-64 code makes in several steps: a place outside a payload, and constants that lead on from there.

Compilers do so for places far outside a symbol (x86-64 psABI: less than 16 MB beyond one), for arrays that are counted from one, and for
what they address from a common anchor. The first step is lea of a place or, in a program at a fixed address, mov of a constant; a step is
looked for close to the one before, in the order of the bytes; one that another function or a variable takes is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from fatpatch.base.patterns import lazy_pattern
from fatpatch.edit.references.lanes import fields, upper_halves
from fatpatch.edit.references.program import NEAR, Ranges
from fatpatch.edit.references.x86_lengths import fields_behind

WINDOW = 96
"""Bytes between the first step and the second."""
_SHORT = 0x80
"""What a constant of one byte adds."""
_RIP = rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]"
_BASED = rb"[\x80-\x83\x85-\x8b\x8d-\x93\x95-\x9b\x9d-\xa3\xa5-\xab\xad-\xb3\xb5-\xbb\xbd-\xbf]"
"""ModRM bytes of a register and disp32; the stack pointer is none of the registers."""
_MOVES = bytes(range(0xB8, 0xC8))
_LARGE = rb"(?=..(?:[^\x00\xff]|.[^\x00\xff]|\x00\xff|\xff\x00))"
"""A constant of 64 KiB or more."""
_LEA = lazy_pattern(rb"[\x48\x4c]\x8d" + _RIP + rb"(?=....)", re.DOTALL)
_MOV = lazy_pattern(rb"(?:[\xb8-\xbf]|\xc7[\xc0-\xc7])(?=....)", re.DOTALL)
_WIDE = tuple(
    lazy_pattern(step + _LARGE, re.DOTALL)
    for step in (
        rb"\x81[\xc0-\xc7\xe8-\xef](?<=[\x48\x49]..)",
        rb"\x05(?<=\x48.)",
        rb"\x2d(?<=\x48.)",
        rb"\x8d" + _BASED + rb"(?<=[\x48\x49\x4c\x4d]..)",
    )
)
"""add and sub of imm32, and lea of disp32, all of 64 bits; a hit ends where the constant begins."""
_NARROW = tuple(lazy_pattern(step + _LARGE, re.DOTALL) for step in (rb"\x81[\xc0-\xc7\xe8-\xef]", rb"\x05", rb"\x2d", rb"\x8d" + _BASED))
"""The same of 32 or 64 bits."""
_SUM = lazy_pattern(rb"[\x48-\x4f][\x01\x03\x29\x2b](?=[\xc0-\xff])|[\x8b\x8d][\x04\x0c\x14\x1c\x24\x2c\x34\x3c](?=.)", re.DOTALL)
"""add and sub of two registers, and what adds them in an address; a hit ends where the byte that names both is."""
_SECOND = lazy_pattern(rb"(?:\x81[\xc0-\xc7\xe8-\xef]|[\x05\x2d]|[\xb8-\xbf]|\xc7[\xc0-\xc7]|" + _BASED + rb")(?=....)", re.DOTALL)
"""add, sub, mov of imm32, and what adds a disp32 to a register."""


def first_steps(data: bytes, address: int, ranges: Ranges, *, fixed: bool) -> Iterator[int]:
    """The offsets of the fields of first steps from which a constant of 64 KiB or more close behind may lead into the ranges."""
    for found in chain.from_iterable(pattern.finditer(data) for pattern in (_NARROW if fixed else _WIDE)):
        constant = _number(data, found.end())
        for field, base in _bases(data, max(found.start() - WINDOW, 0), found.start(), address, fixed=fixed):
            if base + constant in ranges or base - constant in ranges:
                yield field


def sums(data: bytes, address: int, ranges: Ranges, reach: tuple[int, int]) -> Iterator[int]:
    """The same of first steps to which the register of a constant is added, or the other way round.

    ``reach``: the lowest and the highest constant that lead from somewhere in the program to somewhere in the ranges.
    """
    spans = [(max(reach[0], -1 << 31), min(reach[1], -NEAR)), (max(reach[0], NEAR), min(reach[1], (1 << 32) - 1))]
    for at in fields(data, upper_halves(span for span in spans if span[0] <= span[1]), _MOVES):
        for lea in _added_to(data, at) if is_move(data, at) else ():
            base, constant = address + lea + 4 + _number(data, lea), _number(data, at)
            if base + constant in ranges or base - constant in ranges:
                yield min(lea, at)


def _added_to(data: bytes, at: int) -> Iterator[int]:
    """The offsets of displacements of those lea close to the constant at ``at`` to whose register that of the constant is added, or from
    which it is subtracted.
    """
    register, start = data[at - 1] & 7, max(at - 1 - WINDOW, 0)
    others = 0
    for found in _SUM.finditer(data, at + 4, at + 4 + WINDOW):
        first, second = data[found.end()] & 7, data[found.end()] >> 3 & 7
        if register in (first, second):
            others |= 1 << (second if register == first else first)
    if others:
        for lea in _LEA.finditer(data, start, at + 4 + WINDOW):
            if others >> (data[lea.end() - 1] >> 3 & 7) & 1:
                yield lea.end()


def may_lead_on(data: bytes, at: int, base: int, ranges: Ranges) -> bool:
    """Whether a constant close to the first step of which the field is at ``at`` may lead from ``base`` into the ranges."""
    if not ranges.near(base):
        return False
    if ranges.close_before(base):
        return True
    behind = dict[int, int]()
    if ranges.close_before(base, _SHORT):
        behind = dict(fields_behind(data, at + 4, at + 4 + WINDOW))
        if any(size == 1 and data[place] < _SHORT and base + data[place] in ranges for place, size in behind.items()):
            return True
    lea = data[at - 3] & 0xF8 == 0x48 and data[at - 2] == 0x8D
    register = (data[at - 1] >> 3 if lea else data[at - 1]) & 7
    for found in _SECOND.finditer(data, max(at - WINDOW, 0), at + 4 + WINDOW):
        constant, last, place = _number(data, found.end()), found[0][-1], found.end()
        if base + constant in ranges or base - constant in ranges:
            named = 0 if last in (0x05, 0x2D) else last & 7
            if named == register or (is_move(data, place) and at in _added_to(data, place)):
                behind = behind or dict(fields_behind(data, at + 4, at + 4 + WINDOW))
                if place < at or behind.get(place) == 4:
                    return True
    return False


def is_move(data: bytes, at: int) -> bool:
    """Whether the bytes before a field are those of mov of a constant to a register."""
    return at > 1 and (data[at - 1] & 0xF8 == 0xB8 or (data[at - 1] & 0xF8 == 0xC0 and data[at - 2] == 0xC7))


def _bases(data: bytes, start: int, end: int, address: int, *, fixed: bool) -> Iterator[tuple[int, int]]:
    """(offset of the field, the address that it names) of first steps in a piece of code."""
    for found in _LEA.finditer(data, start, end):
        yield found.end(), address + found.end() + 4 + _number(data, found.end())
    for found in _MOV.finditer(data, start, end) if fixed else ():
        yield found.end(), _number(data, found.end()) & 0xFFFFFFFF


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little", signed=True)


def led_on(decoder: Any, code: bytes, address: int, ranges: Ranges) -> int | None:
    """Where the instructions from ``address`` on lead in the ranges, by what they put into registers; None for nowhere."""
    state = _X86Registers(decoder, ranges)
    for step in decoder.disasm(code, address):
        led = state.after(step)
        if led is not None or step.mnemonic.startswith(("call", "jmp", "ret")):
            return led
    return None


class _X86Registers:
    """What is known of the contents of registers, from one instruction to the next."""

    def __init__(self, decoder: Any, ranges: Ranges) -> None:
        self._name_of, self._ranges = decoder.reg_name, ranges
        self._known: dict[str, int] = {}

    def after(self, step: Any) -> int | None:
        """Carry out an instruction; where it leads in the ranges.

        The end of a payload that something else begins at counts where it is compared, unless with a place behind it: a loop over what
        begins there compares so.
        """
        from capstone.x86_const import X86_OP_MEM

        values = [self._value(operand) for operand in step.operands]
        led = result = None
        for operand in step.operands:
            if operand.type == X86_OP_MEM and step.mnemonic != "nop":
                led, result = self._place(step, operand.mem)
        if step.mnemonic in ("mov", "movabs"):
            result = values[1] if len(values) == 2 else None
        elif step.mnemonic in ("add", "sub") and len(values) == 2:
            first, second = values
            result = None if first is None or second is None else first + (second if step.mnemonic == "add" else -second)
            led = result if led is None and result is not None and result in self._ranges else led
        elif step.mnemonic != "lea":
            result = None
        if led is None and step.mnemonic in ("cmp", "sub"):
            highest = max((value for value in values if value is not None), default=None)
            led = highest if highest is not None and self._ranges.doubtful(highest) else None
        self._set(step, result)
        return led

    def _value(self, operand: Any) -> int | None:
        from capstone.x86_const import X86_OP_IMM, X86_OP_REG

        if operand.type == X86_OP_REG:
            return self._of(operand.reg)
        return int(operand.imm) & (0xFFFFFFFF if operand.size == 4 else -1) if operand.type == X86_OP_IMM else None

    def _of(self, register: int) -> int | None:
        return self._known.get(self._family(register))

    def _family(self, register: int) -> str:
        """What the names of a register and of its parts have in common."""
        name = self._name_of(register).lstrip("re")
        return str(name.rstrip("dwb") if name[:1].isdigit() else name.rstrip("xlh"))

    def _set(self, step: Any, result: int | None) -> None:
        for register in step.regs_access()[1]:
            self._known.pop(self._family(register), None)
        if result is not None and step.operands[0].size >= 4 and step.operands[0].reg:
            self._known[self._family(step.operands[0].reg)] = result & (0xFFFFFFFF if step.operands[0].size == 4 else -1)

    def _place(self, step: Any, memory: Any) -> tuple[int | None, int | None]:
        """(where in the ranges an operand in memory leads, the address when all of it is known)."""
        from capstone.x86_const import X86_REG_EIP, X86_REG_RIP

        if memory.base in (X86_REG_RIP, X86_REG_EIP):
            return None, int(step.address + step.size + memory.disp)
        base, index = (self._of(each) if each else 0 for each in (memory.base, memory.index))
        led = (base or 0) + (index or 0) * memory.scale + int(memory.disp)
        known = (memory.base and base is not None) or (memory.index and index is not None)
        leads = led in self._ranges or (memory.index and base is not None and self._ranges.close_before(base))
        return led if known and leads else None, led if None not in (base, index) else None
