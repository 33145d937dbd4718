"""Addresses that x86-64 code makes in two steps: lea of a place outside a payload, and a constant that leads on from there.

Compilers do so for places far outside a symbol (x86-64 psABI: less than 16 MB beyond one), and for arrays that are counted from one. The
second step is looked for close behind the first, in the order of the bytes; one that another function or a variable takes is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

from fatpatch.base.patterns import lazy_pattern
from fatpatch.edit.references.program import Ranges

WINDOW = 96
"""Bytes between the first step and the second."""
_RIP = rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]"
_LEA = lazy_pattern(rb"[\x48\x4c]\x8d" + _RIP + rb"....", re.DOTALL)
_LARGE = rb"(?=..[^\x00\xff]|...[^\x00\xff])"
_STEPS = (
    (lazy_pattern(rb"\x81[\xc0-\xc7](?<=[\x48\x49]..)(?<!\x48.\xc4)", re.DOTALL), 1),
    (lazy_pattern(rb"\x81[\xe8-\xef](?<=[\x48\x49]..)(?<!\x48.\xec)", re.DOTALL), -1),
    (lazy_pattern(rb"\x05(?<=\x48.)", re.DOTALL), 1),
    (lazy_pattern(rb"\x2d(?<=\x48.)", re.DOTALL), -1),
    (
        lazy_pattern(
            rb"\x8d[\x80-\x83\x85-\x8b\x8d-\x93\x95-\x9b\x9d-\xa3\xa5-\xab\xad-\xb3\xb5-\xbb\xbd-\xbf](?<=[\x48\x49\x4c\x4d]..)" + _LARGE
        ),
        1,
    ),
)
"""add and sub of imm32, and lea with a large disp32; a hit ends where the constant begins. The stack pointer is none of the registers."""


def second_steps(data: bytes, address: int, ranges: Ranges) -> Iterator[int]:
    """The offsets of displacements of those lea that a constant behind them leads from into the ranges."""
    for found, sign in chain.from_iterable(((hit, sign) for hit in pattern.finditer(data)) for pattern, sign in _STEPS):
        constant = sign * int.from_bytes(data[found.end() : found.end() + 4], "little", signed=True)
        rex, number = data[found.start() - 1], data[found.end() - 1] & 7 if found.end() - found.start() == 2 else 0
        register = number | (rex & 1) << 3
        start = max(found.start() - WINDOW, 0)
        for lea in _LEA.finditer(data, start, found.start()):
            at = lea.start()
            if (data[at] >> 2 & 1) << 3 | data[at + 2] >> 3 == register:
                target = address + at + 7 + int.from_bytes(data[at + 3 : at + 7], "little", signed=True)
                if target + constant in ranges:
                    yield at + 3


def led_on(decoder: Any, code: bytes, address: int, target: int, register: int, ranges: Ranges) -> int | None:
    """Where the instructions right behind a lea of ``target`` into ``register`` go on to from there, in the ranges; None for nowhere.

    The end of a payload that something else begins at counts where it is compared: nobody compares with the address of a table.
    """
    from capstone.x86_const import X86_OP_IMM, X86_OP_MEM, X86_OP_REG

    for step in decoder.disasm(code, address):
        named = [operand for operand in step.operands if operand.type == X86_OP_REG and operand.reg == register]
        memory = next((operand.mem for operand in step.operands if operand.type == X86_OP_MEM), None)
        constant = next((int(operand.imm) for operand in step.operands if operand.type == X86_OP_IMM), 0)
        if memory is not None and register in (memory.base, memory.index):
            if target + int(memory.disp) in ranges or (memory.index and memory.base and ranges.close_before(target)):
                return target + int(memory.disp)
        elif named and step.mnemonic in ("add", "sub") and constant and step.operands[0].reg == register:
            led = target + (constant if step.mnemonic == "add" else -constant)
            return led if led in ranges else None
        elif named and step.mnemonic in ("cmp", "sub") and ranges.doubtful(target):
            return target
        if register in step.regs_access()[1] or step.mnemonic.startswith(("call", "jmp", "ret")):
            return None
    return None
