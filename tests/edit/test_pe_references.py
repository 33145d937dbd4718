"""Ways to reach a payload of a PE file without its wrapper: each is refused by its place, and a file without one is edited."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import SAMPLES
from edit.elf_builder import fatpatch
from edit.test_prune import two_archs
from edit.test_references import given_for_module_1, second_entry

COMPILER = "x86_64-w64-mingw32-gcc"
SOURCE = """
extern const char wrappers[];
extern void taker(void);
const void *volatile keep[] = {(const void *)taker, wrappers};
int main(int count, char **arguments) { return arguments[0] && keep[count & 1] == 0; }
"""
FIXED = ("-Wl,--image-base,0x400000", "-Wl,--disable-dynamicbase", "-Wl,--disable-high-entropy-va", "-Wl,--disable-reloc-section")
DATA = '.section .rdata,"dr"\n.balign 4\nhere: '
BASE = "leaq __ImageBase(%rip), {}\n"


class PeForm(NamedTuple):
    """Assembly that refers to ``fatbin1``: code, or data at ``here``. ``fixed``: in a program without relocations."""

    name: str
    code: str
    fixed: bool = False


FORMS = (
    PeForm("lea", "leaq fatbin1(%rip), %rax"),
    PeForm("cmp", "cmpl $0xba55ed50, fatbin1(%rip)"),
    PeForm("movups", "movups fatbin1+0x1234(%rip), %xmm9"),
    PeForm("evex", "vmovdqu64 fatbin1+64(%rip), %zmm17"),
    PeForm("movabs", "movabsq $fatbin1+0x100, %rax"),
    PeForm("lea-add", "leaq fatbin1-0x200000(%rip), %rdx\naddq $0x200000, %rdx"),
    PeForm("lea-near", "leaq fatbin1-0x20(%rip), %rdx\nmovl 0x28(%rdx), %eax"),
    PeForm("sum", "leaq fatbin1-0x200000(%rip), %rcx\nmovl $0x200000, %esi\naddq %rsi, %rcx"),
    PeForm("base-mov", BASE.format("%rdx") + ".byte 0x8b, 0x82\n.rva fatbin1"),
    PeForm("base-indexed", BASE.format("%rdx") + ".byte 0x8b, 0x84, 0xba\n.rva fatbin1"),
    PeForm("base-lea", BASE.format("%rdx") + ".byte 0x48, 0x8d, 0x82\n.rva fatbin1"),
    PeForm("base-in-r12", BASE.format("%r12") + ".byte 0x41, 0x8b, 0x84, 0x24\n.rva fatbin1"),
    PeForm("base-in-rbp", BASE.format("%rbp") + ".byte 0x8b, 0x85\n.rva fatbin1"),
    PeForm("base-far-before", BASE.format("%rdx") + ".rept 5000\nnop\n.endr\n.byte 0x8b, 0x82\n.rva fatbin1"),
    PeForm("base-by-movabs", "movabsq $__ImageBase, %rdx\n.byte 0x8b, 0x82\n.rva fatbin1"),
    PeForm("base-add", BASE.format("%rdx") + ".byte 0x48, 0x81, 0xc2\n.rva fatbin1"),
    PeForm("base-add-register", BASE.format("%rdx") + ".byte 0xb8\n.rva fatbin1\naddq %rdx, %rax"),
    PeForm("pointer", ".data\n.balign 8\nhere: .quad fatbin1+16"),
    PeForm("unaligned-pointer", ".data\nhere: .byte 1\n.quad fatbin1"),
    PeForm("pointer-in-code", "jmp 1f\n.balign 8\n.quad fatbin1\n1:"),
    PeForm("rva", DATA + ".rva fatbin1"),
    PeForm("rva-table", DATA + ".rva fatbin0, fatbin1, fatbin2"),
    PeForm("rva-of-an-entry", DATA + ".long 7\n.rva fatbin1_second"),
    PeForm("unaligned-rva", DATA + ".byte 1\n.rva fatbin1"),
    PeForm("64-bit-rva", DATA + ".rva fatbin1\n.long 0"),
    PeForm("self-relative", DATA + ".long fatbin1 - ."),
    PeForm("jump-table", DATA + ".long fatbin0 - here, fatbin1 - here"),
    PeForm("export", '.globl blob\nblob = fatbin1+16\n.section .drectve\n.ascii " -export:blob,data"\n.text'),
    PeForm("imm32", "movl $fatbin1, %eax", fixed=True),
    PeForm("disp32", "movl fatbin1(,%rdi,4), %eax", fixed=True),
    PeForm("32-bit-pointer", DATA + ".long fatbin1", fixed=True),
    PeForm("fixed-pointer", DATA + ".balign 8\n.quad fatbin1+16", fixed=True),
    PeForm("constant-add", "movl $fatbin1-0x200000, %eax\naddl $0x200000, %eax", fixed=True),
)


def linked(form: PeForm, folder: Path) -> Path:
    lines = ['.section .nv_fatb,"dr"']
    for number, data in enumerate(two_archs(SAMPLES)[:3]):
        (folder / f"{number}.fatbin").write_bytes(data)
        lines += [".balign 16", f"fatbin{number}:", f'.incbin "{(folder / f"{number}.fatbin").as_posix()}"']
    lines += [f"fatbin1_second = fatbin1 + {second_entry()}", '.section .nvFatBi,"dw"', ".balign 8", ".globl wrappers", "wrappers:"]
    lines += [f".long 0x466243b1, 1\n.quad fatbin{number}, 0" for number in range(3)]
    in_data = "here: " in form.code
    lines += [
        ".text",
        ".globl taker",
        "taker: leaq here(%rip), %rax\nret" if in_data else "taker:",
        form.code,
        "" if in_data else "ret",
        "",
    ]
    (folder / "forms.s").write_text("\n".join(lines))
    (folder / "host.c").write_text(SOURCE)
    output = folder / ("host.exe" if form.fixed else "host.dll")
    command = [COMPILER, "-O1", *(FIXED if form.fixed else ["-shared"]), "-o", output, folder / "host.c", folder / "forms.s"]
    subprocess.run(command, check=True, timeout=120)
    return output


def edits(path: Path) -> list[tuple[object, ...]]:
    graft = ("graft", path, "--cubin", given_for_module_1(path.parent), "--module", "fatbin[1]")
    return [("prune", path, "--keep", "sm_61", "--compact"), ("recompress", path, "--codec", "zstd", "--compact"), graft]


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs mingw-w64: apt-get install gcc-mingw-w64-x86-64")
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_forms_of_reference_in_pe(form: PeForm, tmp_path: Path) -> None:
    path = linked(form, tmp_path)
    for arguments in edits(path):
        answer = fatpatch(*arguments, "-o", tmp_path / "after")
        assert answer.code == 6, (arguments, answer)
        assert "leads into the payload" in answer.err
        assert not (tmp_path / "after").exists()


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs mingw-w64: apt-get install gcc-mingw-w64-x86-64")
@pytest.mark.parametrize("fixed", [False, True])
def test_a_pe_file_without_a_reference_is_edited(fixed: bool, tmp_path: Path) -> None:
    path = linked(PeForm("none", BASE.format("%rdx") + "movl 0x300(%rdx), %eax", fixed), tmp_path)
    before = path.read_bytes()
    for arguments in edits(path):
        assert fatpatch(*arguments, "-o", tmp_path / "after", "--overwrite").code == 0, arguments
        assert fatpatch("undo", tmp_path / "after").code == 0
        assert (tmp_path / "after").read_bytes() == before
