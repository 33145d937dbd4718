"""Lengths of x86-64 instructions, and where their fields lie, against capstone: of random bytes, and of a real library."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile

from fatpatch.edit.references.x86_lengths import fields_behind, instruction_at


def disassembled(code: bytes, count: int) -> Iterator[capstone.CsInsn]:
    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    reader.detail = True
    return reader.disasm(code, 0, count)


def check(code: bytes, start: int, wanted: capstone.CsInsn) -> bool:
    """Whether both know the instruction; then they must agree."""
    found = instruction_at(code, start, start)
    if found is None:
        return False
    assert found.end - found.start == wanted.size, code[start : start + 15].hex()
    fields = {wanted.disp_offset} if wanted.disp_size and wanted.disp_offset else set()
    fields |= {wanted.imm_offset} if wanted.imm_offset and wanted.mnemonic != "enter" else set()
    known = {each - start for each in (found.displacement, found.constant)}
    assert fields <= known, code[start : start + 15].hex()
    return True


def test_random_bytes() -> None:
    rng = random.Random(20)
    known = 0
    for _ in range(20_000):
        code = rng.randbytes(18)
        wanted = next(disassembled(code, 1), None)
        known += wanted is not None and check(code, 0, wanted)
    assert known > 15_000


def test_a_real_library() -> None:
    """The code of capstone's own library."""
    (library,) = Path(capstone.__file__).parent.glob("lib/libcapstone.*")
    with library.open("rb") as stream:
        if stream.read(4) != b"\x7fELF":
            pytest.skip("no ELF file")
        elf = ELFFile(stream)
        if elf["e_machine"] != "EM_X86_64":
            pytest.skip("no x86-64 code here")
        code = elf.get_section_by_name(".text").data()
    known = [check(code, wanted.address, wanted) for wanted in disassembled(code, 50_000)]
    assert all(known)
    assert len(known) == 50_000


def test_fields_end_at_a_call() -> None:
    code = bytes.fromhex("488d8778563412 83c005 e800000000 83c006") + bytes(16)
    assert list(fields_behind(code, 0, len(code))) == [(3, 4), (9, 1)]
    assert instruction_at(code, 0, 12) == (10, 15, -1, 11)
