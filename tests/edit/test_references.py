"""Ways to reach a payload without its wrapper: each is refused by its place, and a program without one is edited and runs as before."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from random import Random
from typing import NamedTuple

import capstone
import pytest
from conftest import SAMPLES
from edit.elf_builder import AARCH64, X86_64, BuildError, Host, build, build_loader, cubin, fatpatch
from edit.test_elf import FIXED, PIE, found_at_run_time
from edit.test_prune import two_archs

from fatpatch.base.source import Source
from fatpatch.edit.references import aarch64, data, lanes, x86, x86_steps
from fatpatch.edit.references.program import LinkedProgram, Part, Ranges
from fatpatch.formats.numbers import EM_AARCH64, EM_X86_64

SHARED = ("-shared", "-fPIC")


class Form(NamedTuple):
    """Assembly that refers to ``fatbin1``, in which section, and for which kinds of host it can be linked."""

    name: str
    code: str
    section: str = '.text,"ax",@progbits'
    kinds: tuple[tuple[str, ...], ...] = (SHARED, PIE, FIXED)
    compiler: str = X86_64


RELATIVE = '.balign 4\nhere: {}\n.section .text,"ax",{}progbits\nuser: leaq here(%rip), %rax\nret'
ARM_RELATIVE = '.balign 4\nhere: .word fatbin1 - here\n.section .text,"ax",%progbits\nuser: adrp x0, here\nadd x0, x0, :lo12:here\nret'
ARM_ANCHOR = "adrp x0, fatbin1-({0})\nadd x0, x0, :lo12:fatbin1-({0})\n{1}"
X86_FORMS = (
    Form("lea", "leaq fatbin1(%rip), %rax"),
    Form("mov", "movl fatbin1+8(%rip), %eax"),
    Form("cmp-imm8", "cmpb $0x50, fatbin1(%rip)"),
    Form("cmp-imm16", "cmpw $0xed50, fatbin1(%rip)"),
    Form("cmp-imm32", "cmpl $0xba55ed50, fatbin1(%rip)"),
    Form("movups", "movups fatbin1+0x1234(%rip), %xmm9"),
    Form("vmovdqu", "vmovdqu fatbin1+0x40(%rip), %ymm3"),
    Form("evex", "vmovdqu64 fatbin1+0x40(%rip), %zmm17"),
    Form("fld", "fldl fatbin1+16(%rip)"),
    Form("push", "pushq fatbin1+8(%rip)"),
    Form("movzx", "movzwl fatbin1+6(%rip), %r11d"),
    Form("prefetch", "prefetcht0 fatbin1(%rip)"),
    Form("end-of-it", "leaq fatbin1_end-8(%rip), %rax"),
    Form("lea-add", "leaq fatbin1-0x100000(%rip), %rdx\naddq $0x100000, %rdx"),
    Form("movabs", "movabsq $fatbin1+16, %rax", kinds=(FIXED,)),
    Form("imm32", "movl $fatbin1, %eax", kinds=(FIXED,)),
    Form("imm32-push", "pushq $fatbin1\npopq %rax", kinds=(FIXED,)),
    Form("imm32-store", "movq $fatbin1, -8(%rsp)", kinds=(FIXED,)),
    Form("disp32-indexed", "movl fatbin1(,%rax,4), %eax", kinds=(FIXED,)),
    Form("disp32-absolute", "movl fatbin1+8, %eax", kinds=(FIXED,)),
    Form("lea-of-less", "leaq fatbin1-8(%rip), %rcx\nxorl %edx, %edx\naddq $8, %rcx"),
    Form("lea-of-less-indexed", "leaq fatbin1-8(%rip), %rcx\nmovl 4(%rcx,%rdi,4), %eax"),
    Form("add-later", "leaq fatbin1-0x200000(%rip), %r9\nxorl %ecx, %ecx\nnop\naddq $0x200000, %r9"),
    Form("add-to-rax", "leaq fatbin1-0x200000(%rip), %rax\naddq $0x200000, %rax"),
    Form("sub-later", "leaq fatbin1+0x200000(%rip), %rdx\nnop\nsubq $0x200000, %rdx"),
    Form("lea-later", "leaq fatbin1-0x200000(%rip), %rdx\nnop\nleaq 0x200000(%rdx), %rax"),
    Form("constant-first", "movl $0x200000, %esi\nleaq fatbin1-0x200000(%rip), %rcx\naddq %rsi, %rcx"),
    Form("constant-added", "leaq fatbin1-0x200000(%rip), %rcx\nmovq $0x200010, %r9\naddq %rcx, %r9"),
    Form("constant-subtracted", "leaq fatbin1+0x200000(%rip), %rcx\nmovl $0x200000, %eax\nsubq %rax, %rcx"),
    Form("constant-indexed", "leaq fatbin1-0x20(%rip), %rcx\nmovl $0x28, %eax\nmovl (%rcx,%rax), %eax"),
    Form("near-displaced", "leaq fatbin1-0x60(%rip), %rcx\nmovl 0x68(%rcx), %eax"),
    Form("near-displaced-far", "leaq fatbin1-0x4000(%rip), %rcx\nmovl 0x4008(%rcx), %eax"),
    Form("base-moved", "movl $fatbin1 - 0x2000, %eax\naddl $0x2000, %eax", kinds=(FIXED,)),
    Form("base-moved-far", "movl $fatbin1 - 0x200000, %eax\naddl $0x200000, %eax", kinds=(FIXED,)),
    Form("base-moved-far-64", "movq $fatbin1 - 0x200000, %rax\naddq $0x200000, %rax", kinds=(FIXED,)),
    Form("base-moved-indexed", "movl $fatbin1 - 0x40, %eax\nmovl 0x48(%rax,%rdi,4), %eax", kinds=(FIXED,)),
    Form("eip", "leal fatbin1(%eip), %eax", kinds=(FIXED,)),
    Form("end-label", "leaq fatbin2(%rip), %rax"),
    Form("entry", "movl $fatbin1 + 0x1000 + 64, %eax\nmovl $fatbin1_second, %eax", kinds=(FIXED,)),
    Form("entry-32-bit-pointer", ".balign 4\n.long fatbin1_second", '.data,"aw",@progbits', (FIXED,)),
    Form("entry-offset", RELATIVE.format(".long 7, 8, fatbin1_second - here - 8, 9", "@"), '.rodata,"a",@progbits'),
    Form("pointer", ".quad fatbin1 + 16", '.data,"aw",@progbits'),
    Form("unaligned-pointer", ".byte 1\n.quad fatbin1", '.data,"aw",@progbits'),
    Form("read-only-pointer", ".balign 8\n.quad fatbin1 + 0x100", '.rodata,"a",@progbits', (FIXED,)),
    Form("unaligned-read-only", ".byte 1\n.quad fatbin1", '.rodata,"a",@progbits', (FIXED,)),
    Form("self-relative", RELATIVE.format(".long fatbin1 - here", "@"), '.rodata,"a",@progbits'),
    Form("got-relative", "leaq _GLOBAL_OFFSET_TABLE_(%rip), %rax\nmovabsq $fatbin1@GOTOFF, %rdx\naddq %rdx, %rax", kinds=(SHARED, PIE)),
    Form("movabs-load", "movabsl fatbin1+8, %eax", kinds=(FIXED,)),
    Form("counted-from-one", "movl fatbin1-4(,%rdi,4), %eax", kinds=(FIXED,)),
    Form("unknown-to-capstone", "vmovw fatbin1(%rip), %xmm1"),
    Form("lookup-table", RELATIVE.format(".long fatbin0 - here, fatbin1 - here", "@"), '.rodata,"a",@progbits'),
    Form("far-in-its-table", RELATIVE.format(".skip 800, 1\n.long fatbin1 - here - 800", "@"), '.rodata,"a",@progbits'),
    Form("packed-offset", RELATIVE.format(".byte 1\n.long fatbin1 - here - 1", "@"), '.rodata,"a",@progbits'),
    Form("offset-in-code", ".balign 4\nhere: .long fatbin1 - here\nuser: leaq here(%rip), %rax"),
    Form("pointer-in-code", ".balign 8\n.quad fatbin1", kinds=(FIXED,)),
    Form("pointer-in-a-note", ".balign 8\n.quad fatbin1", '.note.table,"a",@note', (FIXED,)),
    Form("32-bit-pointer", ".balign 4\n.long fatbin1", '.data,"aw",@progbits', (FIXED,)),
    Form("behind-data", RELATIVE.format(".long 7", "@") + "\n.byte 0x48, 0xb8\nleaq fatbin1(%rip), %rax\nret", '.rodata,"a",@progbits'),
    Form("self-relative-table", RELATIVE.format(".long 7, 8, fatbin1 - here + 8", "@"), '.rodata,"a",@progbits'),
)
ARM_FORMS = tuple(
    form._replace(compiler=AARCH64)
    for form in (
        Form("adrp-add", "adrp x7, fatbin1\nmov x0, #1\nadd x1, x7, :lo12:fatbin1"),
        Form("adrp-ldr", "adrp x3, fatbin1\nldr w0, [x3, :lo12:fatbin1]"),
        Form("adrp-ldrb", "adrp x3, fatbin1+3\nldrb w0, [x3, :lo12:fatbin1+3]"),
        Form("adrp-ldr-q", "adrp x3, fatbin1\nldr q0, [x3, :lo12:fatbin1]"),
        Form("adrp-str", "adrp x3, fatbin1+8\nstr x0, [x3, :lo12:fatbin1+8]"),
        Form("adr", "adr x30, fatbin1"),
        Form("far-from-its-adrp", "adrp x3, fatbin1+8\n" + "nop\n" * 300 + "ldr w0, [x3, :lo12:fatbin1+8]"),
        Form("adrp-copied", "adrp x3, fatbin1+8\nmov x4, x3\nadrp x3, taker\nldr w0, [x4, :lo12:fatbin1+8]"),
        Form("adrp-on-one-path", "adrp x3, fatbin1+8\ncbz x0, 1f\nadrp x3, taker\n1: ldr w0, [x3, :lo12:fatbin1+8]"),
        Form("movz-movk", "movz x0, #:abs_g0_nc:fatbin1\nmovk x0, #:abs_g1_nc:fatbin1\nmovk x0, #:abs_g2_nc:fatbin1", kinds=(FIXED,)),
        Form("movz-of-an-entry", "movz x0, #:abs_g1:fatbin1_second\nmovk x0, #:abs_g0_nc:fatbin1_second", kinds=(FIXED,)),
        Form("movz-far-apart", "movz w0, #:abs_g1:fatbin1\n" + "nop\n" * 20 + "movk w0, #:abs_g0_nc:fatbin1", kinds=(FIXED,)),
        Form("movz-then-ldr", "movz x0, #:abs_g1:fatbin1-64\nmovk x0, #:abs_g0_nc:fatbin1-64\nldr w1, [x0, #72]", kinds=(FIXED,)),
        Form("anchor-add", ARM_ANCHOR.format("0x5010", "add x1, x0, #5, lsl #12\nadd x1, x1, #0x10"), kinds=(SHARED, FIXED)),
        Form("anchor-ldr", ARM_ANCHOR.format("0x108", "ldr x1, [x0, #0x108]"), kinds=(SHARED,)),
        Form("anchor-ldp", ARM_ANCHOR.format("0x40", "ldp x1, x2, [x0, #0x40]"), kinds=(SHARED,)),
        Form("anchor-ldur", ARM_ANCHOR.format("0x40", "ldur x1, [x0, #0x44]"), kinds=(SHARED,)),
        Form("anchor-register", ARM_ANCHOR.format("0x5000", "mov x1, #0x5000\nldr w0, [x0, x1]"), kinds=(SHARED,)),
        Form("anchor-far", ARM_ANCHOR.format("0x125000", "movz x1, #0x5000\nmovk x1, #0x12, lsl #16\nadd x0, x0, x1"), kinds=(SHARED,)),
        Form("anchor-far-add", ARM_ANCHOR.format("0x125000", "add x0, x0, #0x125, lsl #12"), kinds=(SHARED,)),
        Form("anchor-behind", ARM_ANCHOR.format("-0x20000", "sub x1, x0, #0x20, lsl #12"), kinds=(SHARED,)),
        Form("adr-add", "adr x0, fatbin1-8\nadd x0, x0, #8", kinds=(SHARED,)),
        Form("adrp-of-the-page-before", "adrp x0, fatbin1-0x1000\nadd x0, x0, #1, lsl #12\nadd x0, x0, :lo12:fatbin1", kinds=(SHARED,)),
        Form("adrp-in-a-large-function", "adrp x3, fatbin1\n.rept 6000\nnop\n.endr\nadd x3, x3, :lo12:fatbin1", kinds=(SHARED,)),
        Form(
            "64-bit-offset",
            '.balign 8\nhere: .quad 8, fatbin1 - here\n.section .text,"ax",%progbits\nuser: adr x0, here\nret',
            '.rodata,"a",%progbits',
        ),
        Form("literal-load", "ldr x0, fatbin1"),
        Form("literal-pool", "ldr x0, =fatbin1\nret\n.ltorg", kinds=(FIXED,)),
        Form("self-relative", ARM_RELATIVE, '.rodata,"a",%progbits'),
        Form("pointer", ".balign 8\n.quad fatbin1 + 16", '.data,"aw",%progbits'),
    )
)


def host_with(form: Form, kind: tuple[str, ...]) -> Host:
    label = "\n.globl taker\ntaker: " if "ax" in form.section else "\n"
    extra = f".section .nv_fatbin\nfatbin1_end = fatbin2\nfatbin1_second = fatbin1 + {second_entry()}\n.section {form.section}{label}{form.code}\n{'ret' if 'ax' in form.section else ''}\n"
    options = tuple(option for option in kind if kind is not SHARED)
    return Host(form.name, options, form.compiler, program=kind is not SHARED, modules=3, extra=extra)


def second_entry() -> int:
    """How far from the start of a fatbin its second entry begins."""
    data = two_archs(SAMPLES)[1]
    (header, size) = struct.unpack_from("<IQ", data, 20)
    return int(16 + header + size)


def given_for_module_1(folder: Path) -> Path:
    """A cubin that the second module lacks, so that it has to move."""
    path = folder / "given.cubin"
    path.write_bytes(cubin(SAMPLES, 60).replace(b"rms_norm_f32", b"rms_norm_f64"))
    return path


@pytest.mark.parametrize("kind", [SHARED, PIE, FIXED], ids=["shared", "pie", "fixed"])
@pytest.mark.parametrize("form", [*X86_FORMS, *ARM_FORMS], ids=lambda form: f"{form.name}-{form.compiler[:7]}")
def test_forms_of_reference(form: Form, kind: tuple[str, ...], tmp_path: Path) -> None:
    """Refused whatever would move it; an edit that leaves it where it is, is made."""
    if kind not in form.kinds:
        pytest.skip("cannot be linked so")
    try:
        before = build(host_with(form, kind), tmp_path, two_archs(SAMPLES))
    except BuildError as error:
        pytest.skip(str(error))
    for arguments in (
        ("prune", before, "--keep", "sm_61", "--compact"),
        ("recompress", before, "--codec", "zstd", "--compact"),
        ("graft", before, "--cubin", given_for_module_1(tmp_path), "--module", "fatbin[1]"),
    ):
        answer = fatpatch(*arguments, "-o", tmp_path / "after")
        assert answer.code == 6, (arguments, answer)
        assert "leads into the payload" in answer.err
        assert not (tmp_path / "after").exists()


@pytest.mark.parametrize("kind", [SHARED, PIE, FIXED], ids=["shared", "pie", "fixed"])
@pytest.mark.parametrize("sections", [True, False], ids=["sections", "stripped-of-sections"])
def test_a_graft_is_refused_too(kind: tuple[str, ...], sections: bool, tmp_path: Path) -> None:
    """Code that reads the fatbin, in a file with and without section headers."""
    form = X86_FORMS[1]
    host = host_with(form, kind)._replace(sections=sections)
    before = build(host, tmp_path, two_archs(SAMPLES))
    given = given_for_module_1(tmp_path)
    answer = fatpatch("graft", before, "--cubin", given, "--module", "fatbin[1]", "-o", tmp_path / "after")
    assert answer.code == 6, answer
    assert "the instruction 'mov'" in answer.err
    answer = fatpatch("graft", before, "--cubin", given, "--module", "fatbin[0]", "--force", "-o", tmp_path / "after")
    assert "leads into" not in answer.err


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_an_end_label_where_something_else_begins(linker: str, tmp_path: Path) -> None:
    """By its symbol, and without symbols by a comparison."""
    user = '.section .text,"ax",@progbits\n.globl taker\ntaker: leaq {}(%rip), %rdx\n{}\nret\n'
    other = '.section .nv_fatbin\nfatbin_end:\n.section .rodata.z,"a",@progbits\n.globl other\nother: .quad 7\n'
    for name, then, stripped in (("fatbin_end", "nop", False), ("fatbin_end", "cmpq %rdx, %rax", True)):
        host = Host("end", (f"-fuse-ld={linker}",), modules=2, extra=other + user.format(name, then))
        try:
            before = build(host, tmp_path, two_archs(SAMPLES))
        except BuildError as error:
            pytest.skip(str(error))
        if stripped:
            subprocess.run(["strip", before], check=True)
        answer = fatpatch("prune", before, "--keep", "sm_61", "--compact", "-o", tmp_path / "after", "--overwrite")
        assert answer.code == 6, (name, then, answer)


def test_a_loop_over_what_begins_behind_a_payload(tmp_path: Path) -> None:
    """It compares the start of a table with the table's end: no end label."""
    other = '.section .nv_fatbin\nfatbin_end:\n.section .next_table,"a",@progbits\nother: .quad 7, 8\nother_end:\n'
    for code in (
        "movl $fatbin_end, %eax\ncmpq $other_end, %rax",
        "leaq fatbin_end(%rip), %rax\nleaq other_end(%rip), %rdx\ncmpq %rdx, %rax",
    ):
        user = f'.section .text,"ax",@progbits\n.globl taker\ntaker: {code}\nret\n'
        before = build(Host("fixed", FIXED, program=True, modules=3, extra=other + user), tmp_path, two_archs(SAMPLES))
        subprocess.run(["strip", before], check=True)
        answer = fatpatch("prune", before, "--keep", "sm_61", "--compact", "-o", tmp_path / "after", "--overwrite")
        assert answer.code == 0, (code, answer)


def test_arrays_of_numbers_are_no_tables_of_offsets(tmp_path: Path) -> None:
    """One of many numbers that lead into payloads happens to lead to the start of one; alone it would be an offset."""
    around = "\n".join(f".long fatbin1 - here + {0x301 + 5 * index}" for index in range(20))
    code = f'.section .rodata,"a",@progbits\n.balign 4\nhere: {around}\n.long fatbin1 - .\n{around}\n'
    user = '.section .text,"ax",@progbits\n.globl taker\ntaker: leaq here(%rip), %rax\nret\n'
    before = build(Host("shared", modules=3, extra=code + user), tmp_path, two_archs(SAMPLES))
    assert fatpatch("prune", before, "--keep", "sm_61", "--compact", "-o", tmp_path / "after").code == 0


def test_an_unaligned_word_that_leads_to_an_entry(tmp_path: Path) -> None:
    """As in a table of characters in glibc, where an entry happened to begin at 0x24a000; an aligned one is a pointer."""
    for before, code in ((".byte 1", 0), ("", 6)):
        data = f'.section .nv_fatbin\nfatbin1_second = fatbin1 + {second_entry()}\n.section .rodata,"a",@progbits\n.balign 8\n'
        host = Host("fixed", FIXED, program=True, modules=3, extra=f"{data}{before}\n.quad fatbin1_second\n")
        path = build(host, tmp_path, two_archs(SAMPLES))
        assert fatpatch("prune", path, "--keep", "sm_61", "--compact", "-o", tmp_path / "after", "--overwrite").code == code


def test_the_last_number_of_an_array_is_no_pointer(tmp_path: Path) -> None:
    """Two zeros behind 32-bit numbers make a word of the last; behind zeros it is one."""
    for before, code in ((".long fatbin1 + 0x404", 0), (".long 0", 6)):
        data = f'.section .rodata,"a",@progbits\n.balign 8\n.long 0\n{before}\n.quad fatbin1 + 0x400\n'
        path = build(Host("fixed", FIXED, program=True, modules=3, extra=data), tmp_path, two_archs(SAMPLES))
        assert fatpatch("prune", path, "--keep", "sm_61", "--compact", "-o", tmp_path / "after", "--overwrite").code == code


def test_the_end_of_a_string_is_no_offset(tmp_path: Path) -> None:
    """Four bytes behind text happen to lead to an entry (libxgboost.so); behind a number they are an offset."""
    user = '.section .text,"ax",@progbits\n.globl taker\ntaker: leaq here(%rip), %rax\nret\n'
    for before, code in (('.ascii "refs="', 0), (".byte 0, 0, 0, 0, 1", 6)):
        data = f'.section .nv_fatbin\nfatbin1_second = fatbin1 + {second_entry()}\n.section .rodata,"a",@progbits\n.balign 4\n.skip 3\n'
        data += f"here: {before}\n.long fatbin1_second - .\n"
        path = build(Host("shared", modules=3, extra=data + user), tmp_path, two_archs(SAMPLES))
        assert fatpatch("prune", path, "--keep", "sm_61", "--compact", "-o", tmp_path / "after", "--overwrite").code == code


COINCIDENCES = (
    ("constant", "movl $0x11223344, %eax\n.globl after\nafter: ret"),
    ("a number like an address", "andl $fatbin1, %eax"),
    ("a displacement inside a constant", "movabsq $0x0000000505050505, %rax"),
)


@pytest.mark.parametrize(("name", "code"), COINCIDENCES)
def test_coincidences_are_no_references(name: str, code: str, tmp_path: Path) -> None:
    extra = f'.section .text,"ax",@progbits\n.globl taker\ntaker: {code}\nret\n'
    host = Host("fixed", FIXED, program=True, modules=3, extra=extra)
    before = build(host, tmp_path, two_archs(SAMPLES))
    answer = fatpatch("prune", before, "--keep", "sm_61", "--compact", "-o", tmp_path / "after")
    assert answer.code == 0, (name, answer)
    assert len(found_at_run_time(host, tmp_path / "after", build_loader(tmp_path))) == 3


def test_a_field_inside_another_instruction(tmp_path: Path) -> None:
    """The bytes of a RIP-relative access as part of constants: by the start of its function it is known to be none."""
    extra = (
        '.section .text,"ax",@progbits\n.globl taker\n.type taker,@function\ntaker:\n.cfi_startproc\n'
        "movabsq $0x058b000000000000, %rax\n.byte 0xb8\n.long fatbin1 - . - 4\nret\n.cfi_endproc\n"
    )
    before = build(Host("shared", modules=3, extra=extra), tmp_path, two_archs(SAMPLES))
    answer = fatpatch("prune", before, "--keep", "sm_61", "--compact", "-o", tmp_path / "after")
    assert answer.code == 0, answer


def test_exported_symbols_are_refused_by_name(tmp_path: Path) -> None:
    extra = ".section .nv_fatbin\n.globl kernels_blob\n.set kernels_blob, fatbin1 + 16\n"
    for sections in (True, False):
        before = build(Host("shared", modules=3, extra=extra, sections=sections), tmp_path, two_archs(SAMPLES))
        given = given_for_module_1(tmp_path)
        answer = fatpatch("graft", before, "--cubin", given, "--module", "fatbin[1]", "-o", tmp_path / "after")
        assert answer.code == 6, answer
        assert "'kernels_blob'" in answer.err


def test_symbols_for_a_debugger_follow(tmp_path: Path) -> None:
    """nm says where the fatbin is now, and of which size; strip and undo take the file as any other."""
    extra = ".section .nv_fatbin\n.type fatbin1,@object\n.size fatbin1, fatbin2 - fatbin1\n"
    before = build(Host("shared", modules=3, extra=extra), tmp_path, two_archs(SAMPLES))
    given, after = given_for_module_1(tmp_path), tmp_path / "after"
    answer = fatpatch("graft", before, "--cubin", given, "--module", "fatbin[1]", "-o", after)
    assert answer.code == 0, answer
    old, new = (symbols(path) for path in (before, after))
    assert old["fatbin0"] == new["fatbin0"]
    assert old["fatbin2"] == new["fatbin2"]
    address, size = (int(part, 16) for part in new["fatbin1"][:2])
    assert size > int(old["fatbin1"][1], 16)
    headers = subprocess.run(["objdump", "-hw", after], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in headers.splitlines() if ".nv_fatbin" in line]
    assert [int(row[3], 16) for row in rows][-1] == address
    assert fatpatch("undo", after).code == 0
    assert after.read_bytes() == before.read_bytes()


def symbols(path: Path) -> dict[str, tuple[str, ...]]:
    """Address and size by name, as nm prints them."""
    lines = subprocess.run(["nm", "-S", path], capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[-1]: tuple(line.split()[:-1]) for line in lines}


# The searches alone, against a plain look at every byte


def program(data: bytes, address: int, machine: int, functions: tuple[int, ...] = (), *, code: bool = True) -> LinkedProgram:
    part = Part(0, len(data), address, code)
    return LinkedProgram(Source.of(data), "x", machine, (part,), False, None, (), (), lambda: functions)


def test_numbers_in_a_range() -> None:
    random = Random(3)
    block = random.randbytes(5000)
    for width in (4, 8):
        for _ in range(200):
            middle = int.from_bytes(block[(at := random.randrange(4000)) : at + width], "little", signed=True)
            low, high = middle - random.choice((0, 1, 300, 1 << 20)), middle + random.choice((0, 1, 300, 1 << 20))
            signed = low < 0
            wanted = []
            for place in range(len(block) - width + 1):
                value = int.from_bytes(block[place : place + width], "little", signed=signed)
                if low <= value <= high:
                    wanted.append((place, value))
            assert sorted(lanes.numbers(block, low, high, width)) == wanted


def test_rip_relative_fields_against_capstone() -> None:
    """Every RIP-relative operand of real code, and no other place."""
    libc = Path("/usr/lib/x86_64-linux-gnu/libm.so.6")
    if not libc.is_file():
        pytest.skip("needs a library to read")
    text = subprocess.run(["objdump", "-hw", libc], capture_output=True, text=True, check=True).stdout
    row = next(line.split() for line in text.splitlines() if line.split()[1:2] == [".text"])
    size, address, offset = (int(row[index], 16) for index in (2, 3, 5))
    code = libc.read_bytes()[offset : offset + min(size, 200_000)]
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    wanted = {}
    for each in decoder.disasm(code, address):
        for operand in each.operands:
            if operand.type == capstone.x86.X86_OP_MEM and operand.mem.base == capstone.x86.X86_REG_RIP:
                wanted[each.address] = each.address + each.size + operand.mem.disp
    assert len(wanted) > 1000
    low, high = min(wanted.values()), max(wanted.values()) + 1
    found = {each.place: each.target for each in x86.instructions(program(code, address, EM_X86_64, (address,)), Ranges([(low, high)], []))}
    assert {place: target for place, target in found.items() if place in wanted} == wanted
    assert len(found) - len(wanted) < len(wanted) * 0.001


def test_addresses_that_aarch64_code_makes() -> None:
    """Against the disassembler of capstone."""
    words = [0x90000067, 0xD503201F, 0x910490E1, 0xF0FFFFE2, 0x91400442, 0x10FFFFC3, 0x70000024, 0xB0000005, 0xD65F03C0]
    block, address = struct.pack(f"<{len(words)}I", *words), 0x401000
    wanted, pages = [], {}
    for at, _, name, operands in capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM).disasm_lite(block, address):
        parts = operands.replace("#", "").split(", ")
        if name == "adr":
            wanted.append((at, int(parts[1], 16)))
        elif name == "adrp":
            pages[parts[0]] = (at, int(parts[1], 16))
        elif name == "add":
            place, page = pages[parts[1]]
            wanted.append((place, page + (int(parts[2], 0) << (12 if "lsl" in operands else 0))))
    assert len(wanted) == 4
    found = aarch64.instructions(program(block, address, EM_AARCH64), Ranges([(0, 1 << 40)], []))
    assert sorted((each.place, each.target) for each in found) == sorted(wanted)


def test_the_operand_of_padding_is_no_address() -> None:
    """nopw 0(%rax,%rax) behind lea of 0x8000: twice that lies in the payload (libctransformers.so); with mov it is a reference."""
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    lea = bytes.fromhex("488d05f96f0000")
    for then, led in (("660f1f840000000000", None), ("8b0400", 0x10000), ("4801c0", 0x10000), ("48ffc04801c0", None)):
        code = lea + bytes.fromhex(then) + b"\xc3"
        assert x86_steps.led_on(decoder, code, 0x1000, Ranges([(0x10000, 0x11000)], [])) == led


def test_words_that_count_from_their_own_place() -> None:
    block = bytearray(4096)
    struct.pack_into("<i", block, 1024, 0x5000 - (0x1000 + 1024))
    struct.pack_into("<i", block, 2048, 0x5123 - (0x1000 + 2048))  # into the middle: a number like any other
    rows = data.offsets(program(bytes(block), 0x1000, EM_X86_64, code=False), Ranges([(0x5000, 0x6000)], []))
    found = [row.found for row in rows if row.found.how.endswith("its own place")]
    assert [(each.place, each.target) for each in found] == [(0x1000 + 1024, 0x5000)]
