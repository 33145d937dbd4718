"""Instructions of x86-64 that name an address: relative to RIP, to the global offset table or to the image base, or in a program at
a fixed address as a constant.

Every offset whose four bytes could lead into a payload is a candidate; whether it is the field of an instruction is decided by
disassembling from the start of its function (Intel SDM volume 2: ModRM.mod 00 with r/m 101 is RIP-relative in 64-bit mode).
"""

from __future__ import annotations

import bisect
import re
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.source import CHUNK
from fatpatch.edit.references.data import is_round
from fatpatch.edit.references.lanes import fields, numbers, upper_halves
from fatpatch.edit.references.program import NEAR, LinkedProgram, Part, PayloadReference, Ranges
from fatpatch.edit.references.x86_lengths import Instruction, instruction_at
from fatpatch.edit.references.x86_steps import WINDOW, first_steps, is_move, led_on, may_lead_on, sums

_OVERLAP = 16
_AROUND = WINDOW + _OVERLAP
_BLOCK = 1 << 15
_RIP_RELATIVE = rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]"
"""ModRM bytes."""
_RIP_BYTES = bytes(0x05 | register << 3 for register in range(8))
_WITH_OPERAND = frozenset(
    (*(row + column for row in range(0, 0x40, 8) for column in range(4)), 0x63, 0x69, 0x6B, *range(0x80, 0x90), 0xC0, 0xC1, 0xC6, 0xC7)
) | frozenset((*range(0xD0, 0xD4), *range(0xD8, 0xE0), 0xF6, 0xF7, 0xFE, 0xFF))
"""One-byte opcodes with a ModRM byte (Intel SDM volume 2, appendix A)."""
_WITHOUT_OPERAND = frozenset(range(0x80, 0x90))
"""Opcodes behind 0F that have none, and that are common: jumps."""
_LEA = lazy_pattern(rb"[\x48-\x4f]\x8d(?=" + _RIP_RELATIVE + rb"....)", re.DOTALL)
_MOVABS = {half: lazy_pattern(re.escape(half) + rb"(?<=[\x48\x49][\xb8-\xbf].{8})", re.DOTALL) for half in (b"\0" * 4, b"\xff" * 4)}
"""The upper half of the number in ``movabs r64, imm64``, where it is its sign; an expression that begins with one byte is found fastest."""
_DISP32 = struct.Struct("<i").unpack_from
_SPAN = 1 << 16
"""Bytes before an offset from the image base in which code takes the base."""
_IMMEDIATES = (0, 1, 2, 4)
"""Bytes that may follow the displacement in its instruction."""
_LONGEST = 15
_FAR = 1 << 18
"""A function start farther away than this proves nothing; then the instructions are found by agreement."""
_LEA_OPCODE = 0x8D
_LEAD = 96
_LEAD_IN, _LATER = 123, (0, 2, 3)
"""Bytes before a field at which decoding starts, to see whether it lies at a boundary at all, and how much later, too."""
_NOT_ADDRESSES = (
    *("and", "or", "xor", "test", "imul", "ror", "rol", "shl", "shr", "sar", "bt"),
    *("in", "out", "int", "ret", "enter", "call", "j"),
)
"""Beginnings of mnemonics whose constant is not an address in data."""
_MAX32 = 1 << 31
_BEYOND = 1 << 24
_LARGE = 1 << 20
"""Bytes of code in which no sum of two registers is looked for: it takes most of the time, and compilers make none."""


def instructions(program: LinkedProgram, ranges: Ranges) -> Iterator[PayloadReference]:
    """The instructions that lead into ``ranges``."""
    decoder: _Decoder | None = None
    code = _Code(program)
    for part in program.parts:
        if not part.code:
            continue
        for place in sorted(set(_candidates(program, part, ranges))):
            if code.surely_none(part, place):
                continue
            decoder = decoder or _Decoder(code)
            if (found := decoder.at(part, place, ranges)) is not None:
                yield found


def _candidates(program: LinkedProgram, part: Part, ranges: Ranges) -> Iterator[int]:
    """The addresses of fields that would lead into the ranges, were they fields of instructions."""
    reach = _reach(program, ranges)
    for start in range(0, part.size, CHUNK):
        lead = min(start, _AROUND)
        data = program.source.peek(part.offset + start - lead, min(lead + CHUNK + _AROUND, part.size - start + lead))
        address = part.address + start - lead
        for inside in range(0, len(data), _BLOCK):
            yield from (address + at for at in _relative(data, inside, address, ranges))
        if program.fixed:
            yield from (address + at for at in _constants(data, ranges))
        if program.base is not None:
            yield from (address + at for at in _from_base(data, program.base, ranges))
        if program.gots:
            yield from (address + at for at in _from_got(data, program.gots, ranges))
        yield from (address + at for at in first_steps(data, address, ranges, fixed=program.fixed))
        if part.size <= _LARGE:
            yield from (address + at for at in sums(data, address, ranges, reach))


def _reach(program: LinkedProgram, ranges: Ranges) -> tuple[int, int]:
    """The lowest and the highest constant that lead from somewhere in the program, or not far outside, to somewhere in the ranges."""
    low = min((part.address for part in program.parts), default=0)
    high = max((part.address + part.size for part in program.parts), default=0)
    return ranges.low - high - _BEYOND, ranges.high - low + _BEYOND


def _relative(data: bytes, start: int, address: int, ranges: Ranges) -> Iterator[int]:
    """The offsets of displacements from RIP, in the block at ``start``, that lead into the ranges or, with a constant, on into them."""
    block = data[start : start + _BLOCK + _OVERLAP]
    longest = max(_IMMEDIATES)
    behind = address + start + len(block) + 4 + longest
    spans = ((max(low - NEAR - behind, -_MAX32), min(high + NEAR - address - start - 4, _MAX32 - 1)) for low, high in ranges.spans)
    low, high = ranges.low - NEAR - address - 4, ranges.high + NEAR - address - 4
    for inside in fields(block, upper_halves(span for span in spans if span[0] <= span[1]), _RIP_BYTES):
        at = start + inside
        distance = at + _DISP32(data, at)[0]
        if low <= distance < high:
            target = address + 4 + distance
            onward = data[at - 2] == _LEA_OPCODE and (ranges.doubtful(target) or may_lead_on(data, at, target, ranges))
            if (onward or ranges.any_of(target, target + longest)) and _is_operand(data, at - 1):
                yield at


def _constants(data: bytes, ranges: Ranges) -> Iterator[int]:
    """The offsets of constants that are addresses in the ranges or, by what is added to them, lead on into them."""
    low, high = max(ranges.low - NEAR, 0), ranges.high + NEAR
    for at, value in (*numbers(data, low, min(high, (1 << 32) - 1), 4), *numbers(data, low, high, 8)):
        onward = is_move(data, at) and may_lead_on(data, at, value, ranges)
        if onward or value in ranges or ranges.close_before(value) or ranges.doubtful(value):
            yield at


def _from_got(data: bytes, gots: Sequence[int], ranges: Ranges) -> Iterator[int]:
    """Where ``movabs r64, imm64`` holds what is to be added to the address of the global offset table: less than 2 GB, of either sign."""
    upper = ({b"\0" * 4} if ranges.high > min(gots) else set()) | ({b"\xff" * 4} if ranges.low < max(gots) else set())
    for found in chain.from_iterable(_MOVABS[each].finditer(data) for each in upper):
        value = int.from_bytes(data[found.end() - 8 : found.end()], "little", signed=True)
        if any(got + value in ranges for got in gots):
            yield found.end() - 8


def _is_operand(data: bytes, at: int) -> bool:
    """Whether the byte at ``at`` can be a ModRM byte: one-byte opcodes that take one are few, others have a map or prefix before them."""
    if at < 5 or data[at - 1] in _WITH_OPERAND or data[at - 3] == 0xC5:
        return True
    if data[at - 2] == 0x0F or (data[at - 3] == 0xD5 and data[at - 2] >> 7):
        return data[at - 1] not in _WITHOUT_OPERAND
    return (data[at - 3] == 0x0F and data[at - 2] in (0x38, 0x3A)) or data[at - 4] in (0xC4, 0x8F) or data[at - 5] == 0x62


def _from_base(data: bytes, base: int, ranges: Ranges) -> Iterator[int]:
    """Displacements from a register that may hold the image base (ModRM.mod 10)."""
    for at, value in numbers(data, max(ranges.low - base, 1), min(ranges.high - base, _MAX32 - 1), 4):
        if at >= 3 and base + value in ranges and (data[at - 1] >> 6 == 2 or data[at - 2] & 0xC7 == 0x84):
            yield at


class _Code:
    """A program's code around a field of four bytes that may be of an instruction."""

    def __init__(self, program: LinkedProgram) -> None:
        self.program = program
        self._functions = program.functions()

    def function(self, part: Part, field: int) -> int | None:
        """Where the function of the field starts; None where that is not known."""
        index = bisect.bisect_right(self._functions, field) - 1
        if index < 0 or self._functions[index] < part.address or field - self._functions[index] > _FAR:
            return None
        return self._functions[index]

    def surely_none(self, part: Part, field: int) -> bool:
        """Whether decodings from several places before the field agree on an instruction, and it has no such field there.

        Decoding from any byte falls into step with the instructions within a few of them; this spares a sweep of most functions.
        """
        start = self.function(part, field)
        if start is None or field - start <= max(_LATER) or self.is_common(part, field):
            return False
        starts = [min(_LEAD_IN, field - start) - later for later in _LATER]
        found = {self._instruction(part, field - distance, field) for distance in starts}
        if len(found) > 1 and (swept := self._instruction(part, start, field)) in found:
            found = {swept}
        only = found.pop()
        return not found and only is not None and field not in (only.displacement, only.constant)

    def _instruction(self, part: Part, start: int, field: int) -> Instruction | None:
        """The instruction that the byte at ``field`` belongs to, decoding from ``start`` on; all are addresses."""
        data = self.program.source.peek(part.offset + start - part.address, field - start + _LONGEST)
        found = instruction_at(data, 0, field - start)
        return None if found is None else found.moved(start)

    def is_common(self, part: Part, field: int) -> bool:
        """Whether it is of the commonest forms, mov and lea of 64 bits, which count wherever decoding ends up."""
        data = self.before(part, field)
        return data[-3] & 0xF8 == 0x48 and data[-2] in (0x8D, 0x8B) and data[-1] in _RIP_BYTES

    def before(self, part: Part, field: int) -> bytes:
        """The eight bytes before a field; zeros where there are none."""
        at = field - part.address
        return self.program.source.peek(part.offset + max(at - 8, 0), min(at, 8)).rjust(8, b"\0")


class _Decoder:
    """Disassembles around candidates; each function once, as far as it is needed."""

    def __init__(self, code: _Code) -> None:
        from capstone import CS_ARCH_X86, CS_MODE_64, Cs

        self._code, self._program = code, code.program
        self._lite = Cs(CS_ARCH_X86, CS_MODE_64)
        self._lite.skipdata = True
        self._full = Cs(CS_ARCH_X86, CS_MODE_64)
        self._full.detail = True
        self._origin = self._reached = -1
        """Where the last sweep began, and the last instruction boundary that it reached."""

    def at(self, part: Part, field: int, ranges: Ranges) -> PayloadReference | None:
        """The reference whose address field lies at ``field``; None when no instruction has such a field there."""
        if self._code.is_common(part, field):
            return self._named(part, field - 3, field, ranges)
        if (found := self._unknown(part, field, ranges)) is not None:
            return found
        start = self._code.function(part, field)
        if start is not None and (found := self._named(part, self._swept(part, start, field), field, ranges)) is not None:
            return found
        # No function is known, or the field lies behind data, or behind a function, that the table for unwinders does not know.
        return self._named(part, self._agreed(part, field), field, ranges)

    def _agreed(self, part: Part, field: int) -> int | None:
        """As ``_boundary``, from many places before the field; None when most of them disagree."""
        first = max(part.address, field - _LEAD)
        votes = Counter(self._boundary(part, begin, field) for begin in range(first, min(first + _LONGEST + 1, field)))
        for boundary, count in votes.most_common(1):
            if first == part.address or count * 2 > votes.total():
                return boundary
        return None

    def _swept(self, part: Part, start: int, field: int) -> int | None:
        """As ``_boundary``, going on where the last sweep of the same function ended."""
        begin = self._reached if self._origin == start and self._reached <= field else start
        boundary = self._boundary(part, begin, field)
        if boundary is not None:
            self._origin, self._reached = start, boundary
        return boundary

    def _boundary(self, part: Part, start: int, field: int) -> int | None:
        """Where the instruction begins that the byte at ``field`` belongs to, decoding from ``start`` on."""
        data = self._program.source.peek(part.offset + start - part.address, field - start + _LONGEST)
        for address, size, mnemonic, _ in self._lite.disasm_lite(data, start):
            if address + size > field:
                return None if mnemonic == ".byte" else address
        return None

    def _unknown(self, part: Part, field: int, ranges: Ranges) -> PayloadReference | None:
        """An instruction that the disassembler does not know, told by its prefix (Intel SDM volume 2: VEX, EVEX, opcode maps)."""
        data = self._code.before(part, field)
        if data[-1] not in _RIP_BYTES:
            return None
        sizes = [size for size, prefix in ((6, 0x62), (5, 0xC4), (4, 0xC5)) if data[-size] == prefix]
        if data[-4] == 0x0F and data[-3] in (0x38, 0x3A):
            sizes.append(next(size for size in range(4, 8) if data[-size - 1] not in (0x66, 0xF2, 0xF3) and data[-size - 1] & 0xF0 != 0x40))
        target = field + 4 + int.from_bytes(self._program.source.peek(part.offset + field - part.address, 4), "little", signed=True)
        for size in sizes:
            code = self._program.source.peek(part.offset + field - size - part.address, _LONGEST)
            known = any(True for _ in self._full.disasm(code, field - size, 1))
            if not known and (target in ranges or target + 1 in ranges) and self._undecoded(part, field - size):
                return PayloadReference(field - size, target, "an instruction of an unknown extension")
        return None

    def _undecoded(self, part: Part, place: int) -> bool:
        """Whether decoding comes to the place and cannot go on there."""
        start = self._code.function(part, place)
        before = self._boundary(part, start, place - 1) if start is not None and start < place else self._agreed(part, place - 1)
        if before is None:
            return start == place
        data = self._program.source.peek(part.offset + before - part.address, _LONGEST)
        return any(before + size == place for _, size, _, _ in self._lite.disasm_lite(data, before, 1))

    def _named(self, part: Part, boundary: int | None, field: int, ranges: Ranges) -> PayloadReference | None:
        if boundary is None:
            return None
        data = self._program.source.peek(part.offset + boundary - part.address, _LONGEST)
        for code in self._full.disasm(data, boundary, 1):
            target = next(self._targets(part, code, field - boundary, ranges), None)
            if target is None and code.mnemonic in ("lea", "mov", "movabs"):
                target = led_on(self._full, self._program.source.peek(part.offset + boundary - part.address, _AROUND), boundary, ranges)
            if target is not None:
                return PayloadReference(boundary, target, f"the instruction '{code.mnemonic}'")
        return None

    def _targets(self, part: Part, code: Any, inside: int, ranges: Ranges) -> Iterator[int]:
        """The addresses that the field ``inside`` bytes into an instruction may name."""
        from capstone.x86_const import X86_OP_IMM, X86_OP_MEM

        memory = next((operand.mem for operand in code.operands if operand.type == X86_OP_MEM), None)
        if memory is not None and code.disp_offset == inside:
            yield from self._displaced(part, code, memory, ranges)
        elif code.imm_offset == inside and code.imm_size in (4, 8) and not code.mnemonic.startswith(_NOT_ADDRESSES):
            constant = next((operand.imm for operand in code.operands if operand.type == X86_OP_IMM), 0)
            value = int(constant) & 0xFFFFFFFFFFFFFFFF
            if self._program.fixed and _is_address(code, value, ranges):
                yield value
            if code.imm_size == 8:
                yield from (each for got in self._program.gots for each in (got + int(constant),) if each in ranges)

    def _displaced(self, part: Part, code: Any, memory: Any, ranges: Ranges) -> Iterator[int]:
        from capstone.x86_const import X86_REG_EIP, X86_REG_RBP, X86_REG_RIP, X86_REG_RSP

        displacement = int(memory.disp)
        if memory.base in (X86_REG_RIP, X86_REG_EIP):
            target = int(code.address + code.size + displacement)
            if target in ranges or (self._program.fixed and code.mnemonic == "lea" and ranges.close_before(target)):
                yield target
            return
        if self._program.fixed:
            target = displacement & (0xFFFFFFFF if code.disp_size == 4 else 0xFFFFFFFFFFFFFFFF)
            if target in ranges or ((memory.index or memory.base) and ranges.close_before(target)):
                yield target
        base = self._program.base
        if base is None or memory.base in (0, X86_REG_RSP) or base + displacement not in ranges:
            return
        if self._base_is_near(part, code.address, frame=memory.base == X86_REG_RBP):
            yield base + displacement

    def _base_is_near(self, part: Part, place: int, *, frame: bool) -> bool:
        """Whether an instruction before the place takes the image base; into RBP, where that may point to a frame as well."""
        base = self._program.base
        start = max(part.address, place - _SPAN)
        data = self._program.source.peek(part.offset + start - part.address, place - start)
        for found in _LEA.finditer(data):
            at = found.start() + 7
            into_frame = data[at - 7] & 4 == 0 and data[at - 5] >> 3 == 5
            if start + at + int.from_bytes(data[at - 4 : at], "little", signed=True) == base and (into_frame or not frame):
                return True
        return not frame and base is not None and base.to_bytes(8, "little") in data  # movabs


def _is_address(code: Any, value: int, ranges: Ranges) -> bool:
    """Whether the constant of an instruction names a place in a payload: that of one inside by mov and push alone, since others compare,
    add and store plain numbers; the end of one that something else begins at by cmp, as an end label is used.
    """
    if value not in ranges:
        return code.mnemonic == "cmp" and ranges.doubtful(value)
    moved = str(code.mnemonic).startswith(("mov", "push"))
    return ranges.label(value) or (moved and not is_round(value) and ranges.in_head(value))
