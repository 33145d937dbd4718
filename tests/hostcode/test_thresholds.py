from __future__ import annotations

import struct

import pytest
from capstone import CS_ARCH_X86, CS_MODE_64, Cs
from hostcode.machine_code import CODE, dll, elf

from fatpatch.base.source import Source
from fatpatch.hostcode.thresholds import _ABOVE, _AT_LEAST, _EQUAL, Thresholds, _condition, thresholds
from fatpatch.scan.walk import walked

NOP = b"\x90"
FILLER = NOP * 64


def read(data: bytes) -> Thresholds:
    with walked(Source.of(data), "host") as node:
        return thresholds(node)


def cmp_eax(value: int) -> bytes:
    return b"\x3d" + struct.pack("<i", value)


def jump(condition: int) -> bytes:
    return bytes([0x0F, 0x80 | condition]) + bytes(4)


JE, JNE, JA, JBE, JL, JGE, JLE, JG = 4, 5, 7, 6, 12, 13, 14, 15
PAIR = cmp_eax(700) + jump(JL) + cmp_eax(699) + jump(JG)


@pytest.mark.parametrize(
    ("value", "condition", "expected"),
    [(609, JG, 610), (609, JLE, 610), (610, JL, 610), (610, JGE, 610), (749, JG, 750), (1209, JLE, 1210)],
)
def test_bounds(value: int, condition: int, expected: int) -> None:
    found = read(elf(FILLER + PAIR + cmp_eax(value) + jump(condition) + b"\xc3", b"x"))
    assert found.values == tuple(sorted({700, expected}))
    assert found.places[-1] == (CODE + 64 + len(PAIR), expected)


@pytest.mark.parametrize(("value", "condition"), [(609, JA), (609, JBE), (610, JG), (609, JL), (999, JLE), (609, JE)])
def test_other_comparisons_do_not_count(value: int, condition: int) -> None:
    """Unsigned ones, and those whose bound is no GPU's number: 611, 609."""
    found = read(elf(FILLER + PAIR + cmp_eax(value) + jump(condition) + b"\xc3", b"x"))
    assert 610 not in (*found.values, *found.equals, *found.alone)
    assert (found.values, found.equals) == ((), ())


def test_operands_and_ways_of_use() -> None:
    code = FILLER
    code += b"\x41\x81\xff" + struct.pack("<i", 610) + b"\x0f\x9d\xc0"  # cmp r15d, 610; setge al
    code += b"\x41\x81\x7c\xc0\x08" + struct.pack("<i", 749) + b"\xb8\1\0\0\0" + b"\x0f\x4f\xd0"  # cmp [r8+rax*8+8], 749; mov; cmovg
    code += b"\x81\xbd\xa0\xfe\xff\xff" + struct.pack("<i", 799) + jump(JG)  # cmp [rbp-0x160], 799; jg
    code += b"\x81\x3d\x00\x01\x00\x00" + struct.pack("<i", 610) + b"\x0f\x94\xc0"  # cmp [rip+0x100], 610; sete
    code += b"\x48\x81\xfe" + struct.pack("<i", 599) + b"\x0f\x9f\xc0\xc3"  # cmp rsi, 599; setg
    found = read(elf(code, b"x"))
    assert found.values == (600, 610, 750, 800)
    assert found.equals == (610,)
    assert [value for _, value in found.places] == [610, 750, 800, 610, 600]
    assert "5 comparisons" in found.reason


def test_flags_that_are_lost() -> None:
    code = FILLER + PAIR + cmp_eax(610) + b"\x85\xc0" + jump(JGE) + cmp_eax(609) + b"\xe8\0\0\0\0" + jump(JG) + b"\xc3"
    assert read(elf(code, b"x")).values == ()


def test_inside_another_instruction() -> None:
    """mov rax, imm64 whose bytes look like ``cmp eax, 609; jg``."""
    hidden = b"\x48\xb8\x3d" + struct.pack("<i", 609) + b"\x7f\x02\x90"
    found = read(elf(FILLER + PAIR + hidden * 5 + b"\xc3", b"x"))
    assert (found.values, found.alone) == ((), (700,))


def test_round_numbers_far_apart_are_chance() -> None:
    code = FILLER + cmp_eax(1000) + jump(JL) + NOP * 3000 + cmp_eax(600) + jump(JGE) + b"\xc3"
    found = read(elf(code, b"x"))
    assert (found.values, found.places, found.alone) == ((), (), (600, 1000))
    assert "chance" in found.reason


def test_pe() -> None:
    code = FILLER + (PAIR + cmp_eax(610) + jump(JL)) * 2 + b"\xc3"
    found = read(dll(code, b"x"))
    assert found.values == (610, 700)
    assert found.places[0] == (0x180001000 + 64, 700)


@pytest.mark.parametrize(
    ("data", "words"),
    [(elf(FILLER, b"x", machine=183), "not x86-64"), (elf(FILLER, b"x", kind=1), "object file"), (b"PK nothing", "not an ELF or PE")],
)
def test_unknown_hosts(data: bytes, words: str) -> None:
    found = read(data)
    assert found.values == ()
    assert words in found.reason


def test_damaged_files_raise_nothing() -> None:
    whole = elf(FILLER + PAIR * 4 + b"\xc3", b"x" * 64)
    for cut in range(0, len(whole), 97):
        read(whole[:cut])
    for at in range(0, 64 + 112):
        read(whole[:at] + b"\xff" + whole[at + 1 :])


def test_conditions_by_their_opcodes_are_those_that_a_disassembler_names() -> None:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    for code in [bytes([first, 1]) for first in range(256)] + [bytes([0x0F, second]) for second in range(256)]:
        name = next((name for _, _, name, _ in decoder.disasm_lite(code + bytes([0xC1]) + bytes(8), 0, 1)), "")
        groups = [names for names in (_AT_LEAST, _ABOVE, _EQUAL) if name in names]
        found = _condition(code)
        assert groups == [names for names in (_AT_LEAST, _ABOVE, _EQUAL) if found in names], (code.hex(), name)
    assert _condition(b"") == _condition(b"\x0f") == ""
