"""The compute capabilities that host code compares with.

Programs that choose kernels by the device (ggml above all) hold ``100 * major + 10 * minor`` in a signed int and compare it with a
constant: ``cmp eax, 609; jg`` asks for 6.1 or more. The numbers are those of NVIDIA's GPUs; the forms of the comparison were read off
real ggml builds of gcc and MSVC. Such numbers occur in any program, so only comparisons that stand together count.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.hostcode.code import CodePiece, HostCode, pieces, read_host
from fatpatch.model.tree import Node

if TYPE_CHECKING:
    from capstone import CsInsn

CAPABILITIES: Final = frozenset(
    {500, 520, 530, 600, 610, 620, 700, 720, 750, 800, 860, 870, 880, 890, 900}
    | {1000, 1010, 1030, 1100, 1200, 1210}
)  # fmt: skip
"""100 * major + 10 * minor of NVIDIA's GPUs from Maxwell on."""

_NEAR = 2048
_AGAIN = 4
_MAX_PLACES = 64
_MAX_CANDIDATES = 1 << 11
_LOOK_AHEAD = 96
_FEW: Final = 2
_MANY: Final = 16
_LOOK_BACK: Final = range(48, 64, 2)
_STEPS = 16
_IMMEDIATES = frozenset(CAPABILITIES | {value - 1 for value in CAPABILITIES})
_CMP_EAX = 0x3D
_WITH_EAX = lazy_pattern(rb"\x3d(?=.[\x01-\x04]\x00\x00)", re.DOTALL)
_WITH_ANY = lazy_pattern(rb"\x81[\x38-\x3f\x78-\x7f\xb8-\xbf\xf8-\xff]")
_REX = range(0x40, 0x50)
_ROUND = 100
_AT_LEAST = frozenset({"jl", "jge", "setl", "setge", "cmovl", "cmovge"})
_ABOVE = frozenset({"jle", "jg", "setle", "setg", "cmovle", "cmovg"})
_EQUAL = frozenset({"je", "jne", "sete", "setne", "cmove", "cmovne"})
_DECIDING = _AT_LEAST | _ABOVE | _EQUAL
_CONDITIONS = {0x4: "je", 0x5: "jne", 0xC: "jl", 0xD: "jge", 0xE: "jle", 0xF: "jg"}
_SHORT_JUMP, _TWO_BYTES, _CONDITIONAL = 0x7, 0x0F, frozenset({0x4, 0x8, 0x9})
"""High halves of the opcodes of jumps (SDM volume 2, appendix A): 7x; behind 0F 4x moves, 8x jumps, 9x sets."""


class Thresholds(NamedTuple):
    """The compute capabilities that host code asks for, in ascending order.

    ``values`` are lower bounds (610: the host tells 6.1 and above from what is below), ``equals`` are asked for exactly. ``places`` are
    (virtual address of the comparison, value), at most 64. ``alone`` are numbers that are compared with here and there, far from any other:
    chance, unless the program is known to tell devices apart. ``reason`` says on what the answer rests.
    """

    values: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    reason: str
    equals: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()


class _Comparison(NamedTuple):
    address: int
    value: int
    exact: bool


def thresholds(node: Node) -> Thresholds:
    """Read the thresholds of the host code of one file; empty, with the reason, where there is nothing to go by."""
    host, reason = read_host(node)
    if host is None:
        return Thresholds((), (), reason)
    found, complete = _comparisons(host)
    close, pairs = _together(found)
    often = {value for value in {item.value for item in found} if value % _ROUND and _count(found, value) >= _AGAIN}
    values = {item.value for item in close} | often
    kept = [item for item in found if item.value in values]
    bounds = tuple(sorted({item.value for item in kept if not item.exact}))
    equals = tuple(sorted({item.value for item in kept if item.exact}))
    places = tuple((item.address, item.value) for item in kept[:_MAX_PLACES])
    alone = tuple(sorted({item.value for item in found} - values))
    return Thresholds(bounds, places, _words(found, kept, pairs, complete and host.complete), equals, alone)


def _words(found: list[_Comparison], kept: list[_Comparison], pairs: int, complete: bool) -> str:
    if not found:
        words = "no comparison with the number of a compute capability"
    elif not kept:
        words = f"{len(found)} comparisons with such a number, but none near one with another: taken for chance"
    else:
        words = f"{len(kept)} comparisons with such numbers"
        words += f", {pairs} of them within {_NEAR} bytes of one with another number" if pairs else ""
        words += "; where the other side comes from is not followed"
    return words if complete else words + "; the file is so large that only a part of its code was read"


def _count(found: list[_Comparison], value: int) -> int:
    return sum(item.value == value for item in found)


def _together(found: list[_Comparison]) -> tuple[list[_Comparison], int]:
    """The comparisons that have one with another number close by, if any number among them is not a round one."""
    close = set()
    for index, item in enumerate(found):
        for other in found[index + 1 :]:
            if other.address - item.address > _NEAR:
                break
            if other.value != item.value and (other.value % _ROUND or item.value % _ROUND):
                close |= {item, other}
    return sorted(close), len(close)


def _comparisons(host: HostCode) -> tuple[list[_Comparison], bool]:
    """Every signed comparison with such a number whose outcome is used, by address; False when there were too many to look at all."""
    decoder = _CodeDecoder()
    found: list[_Comparison] = []
    left = _MAX_CANDIDATES
    for piece in pieces(host, host.code):
        for at in _candidates(piece):
            left -= 1
            if left < 0:
                return sorted(found), False
            item = _comparison(decoder, piece, at)
            if item is not None:
                found.append(item)
    return sorted(found), True


def _candidates(piece: CodePiece) -> Iterator[int]:
    """Where the opcode of ``cmp r/m, imm32`` with one of the numbers lies, by the bytes alone."""
    data = piece.data
    for pattern, operand in ((_WITH_EAX, False), (_WITH_ANY, True)):
        for hit in pattern.finditer(data):
            at = hit.start()
            end = at + 1 + (_operand_size(data, at + 1) if operand else 0)
            if piece.first <= at < piece.last and int.from_bytes(data[end : end + 4], "little") in _IMMEDIATES:
                yield at


def _operand_size(data: bytes, at: int) -> int:
    """Bytes of ModRM, SIB and displacement (Intel SDM volume 2, table 2-2)."""
    mod, low = data[at] >> 6, data[at] & 7
    if mod == 3:
        return 1
    sib = low == 4
    wide = mod == 2 or (mod == 0 and low == 5) or (sib and mod == 0 and data[at + 1 : at + 2] and data[at + 1] & 7 == 5)
    return 1 + sib + (4 if wide else mod)


def _comparison(decoder: _CodeDecoder, piece: CodePiece, opcode: int) -> _Comparison | None:
    """What the comparison whose opcode lies at ``opcode`` asks for: by the first instruction behind it that looks at the flags."""
    data = piece.data
    at = _start(decoder, data, opcode)
    if at is None:
        return None
    end = opcode + 5 + (_operand_size(data, opcode + 1) if data[opcode] != _CMP_EAX else 0)
    if end > len(data):
        return None
    value = int.from_bytes(data[end - 4 : end], "little", signed=True)
    name = _condition(data[end : end + 2]) or decoder.deciding(data[at : at + _LOOK_AHEAD])
    value += name in _ABOVE
    return _Comparison(piece.address + at, value, name in _EQUAL) if name and value in CAPABILITIES else None


def _condition(code: bytes) -> str:
    """The condition of a jump, move or set by its opcode, as the jump is called; "" for others, which may decide too."""
    first, second = (*code, 0, 0)[:2]
    if first >> 4 == _SHORT_JUMP:
        return _CONDITIONS.get(first & 15, "")
    return _CONDITIONS.get(second & 15, "") if first == _TWO_BYTES and second >> 4 in _CONDITIONAL else ""


class _CodeDecoder:
    """Decodes x86-64 code; what the registers of an instruction are is asked for in few places, and costs most."""

    def __init__(self) -> None:
        from capstone import CS_ARCH_X86, CS_MODE_64, Cs

        self._light, self._full = Cs(CS_ARCH_X86, CS_MODE_64), Cs(CS_ARCH_X86, CS_MODE_64)
        self._light.skipdata = self._full.skipdata = self._full.detail = True

    def places(self, code: bytes, at: int, most: int) -> Iterator[tuple[int, int]]:
        """Offset and size of the first instructions of code that lies at ``at``."""
        for address, size, _, _ in self._light.disasm_lite(code, at, most):
            yield address, size

    def deciding(self, code: bytes) -> str:
        """The first instruction behind the comparison at the start of ``code`` that looks at its outcome; "" when it is not used so."""
        for each in islice(self._full.disasm(code, 0, _STEPS), 1, None):
            if each.mnemonic in _DECIDING:
                return str(each.mnemonic)
            if _ends_flags(each):
                return ""
        return ""


def _ends_flags(code: CsInsn) -> bool:
    """Whether the outcome of a comparison does not live beyond an instruction, or is used in another way."""
    from capstone import CS_GRP_CALL, CS_GRP_JUMP, CS_GRP_RET
    from capstone.x86_const import X86_REG_EFLAGS

    if not code.id:  # no instruction
        return True
    reads, writes = code.regs_access()
    return X86_REG_EFLAGS in (*reads, *writes) or any(code.group(group) for group in (CS_GRP_CALL, CS_GRP_JUMP, CS_GRP_RET))


def _start(decoder: _CodeDecoder, data: bytes, opcode: int) -> int | None:
    """Where the instruction with this opcode starts; None when the bytes are not an instruction of their own.

    x86 code that is decoded from anywhere falls into step within a few instructions, so most of several starts must lead here.
    """
    possible = [opcode - 1, opcode] if opcode and data[opcode - 1] in _REX else [opcode]
    hits = dict.fromkeys(possible, 0)
    backs = [back for back in _LOOK_BACK if back <= opcode] or [opcode]
    known: dict[int, int] = {}
    for tried, back in enumerate(backs):
        most = max(hits.values())
        enough = 2 * most > len(backs) or 2 * hits[possible[0]] == len(backs)
        if enough or 2 * (most + len(backs) - tried) < len(backs):
            break  # decided: the rest changes nothing
        led = _leads_to(decoder, data, opcode, opcode - back, hits, known)
        if led in hits:
            hits[led] += 1
    best = max(possible, key=lambda at: hits[at])
    return best if 2 * hits[best] >= len(backs) else None


def _leads_to(decoder: _CodeDecoder, data: bytes, opcode: int, at: int, wanted: Container[int], known: dict[int, int]) -> int:
    """The first of the ``wanted`` places at which decoding from ``at`` comes by; -1 for none. ``known``: what other places led to."""
    passed: list[int] = []
    led = known.get(at)
    most = _FEW if known else _MANY  # the first way is long, the others soon meet it
    while led is None:
        following = at
        for address, size in decoder.places(data[at : opcode + 16], at, most):
            led = known.get(address)
            passed.append(address)
            if led is None and (address in wanted or address + size > opcode):
                led = address if address in wanted else -1
            if led is not None:
                break
            following = address + size
        if following == at:
            led = -1 if led is None else led
        at = following
    known.update(dict.fromkeys(passed, led))
    return led
