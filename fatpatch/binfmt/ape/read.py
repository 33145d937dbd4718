"""Actually Portable Executables, llamafiles among them: one file that is a PE, shell script, ELF and zip at once.

Reference: APE specification v0.1. The ELF headers are written in octal inside the shell script, in its first 8192 bytes.
"""

from __future__ import annotations

import re

from fatpatch.base.source import Source
from fatpatch.binfmt.elf.elf64 import SEGMENT, ElfHeader, header_of, segments
from fatpatch.binfmt.pe import read as pe
from fatpatch.binfmt.zip import read as zip
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, Section

KIND = ContainerKind.APE
PROLOGUE = 8192
_PT_LOAD, _MAX_SEGMENTS = 1, 64
_PRINTF = rb"printf '(\\177ELF[^']*)'"
_OCTAL = rb"\\([0-7]{1,3})"
_NAMES = {n.EM_X86_64: "x86-64", n.EM_AARCH64: "aarch64"}


def probe(source: Source) -> bool:
    """Whether the source starts with one of the three APE magics."""
    return source.peek(0, 8) in n.APE_MAGICS


def elf_headers(source: Source) -> tuple[ElfHeader, ...]:
    """The ELF headers that the shell script writes, decoded from its octal."""
    script = source.peek(0, PROLOGUE)
    decoded = (re.sub(_OCTAL, lambda digit: bytes([int(digit[1], 8) & 0xFF]), found[1]) for found in re.finditer(_PRINTF, script))
    return tuple(header for each in decoded if (header := header_of(each)) is not None)


def _end(source: Source, elf: ElfHeader) -> int:
    """Where the last segment ends that an ELF header leads to."""
    table = source.peek(elf.phoff, min(elf.phnum, _MAX_SEGMENTS) * SEGMENT.size) if elf.phentsize == SEGMENT.size else b""
    return max((each.offset + each.file_size for each in segments(table) if each.type == n.PT_LOAD), default=0)


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """The architectures it runs on, its PE sections, and its zip members at their absolute offsets."""
    headers = elf_headers(source)
    words = [_NAMES.get(header.machine, f"machine {header.machine}") for header in headers]
    sections: tuple[Section, ...] = ()
    segments: tuple[Section, ...] = ()
    if pe.probe(source):
        windows = pe.read(source, locator, diagnostics)
        sections, segments = windows.sections, windows.segments
        if not words:
            words = [windows.detail.split()[0]]
    end = max((_end(source, header) for header in headers), default=0)
    if end > source.size:
        diagnostics.error(locator, source.size, f"the file is cut off: its segments reach to {end:#x}", field="ELF program headers")
    directory = zip.find_directory(source)
    if directory is None:
        zip.report_cut(source, locator, diagnostics)
    members = () if directory is None else zip.read_members(source, directory, locator, diagnostics)
    return Container(
        kind=KIND,
        detail=", ".join(dict.fromkeys(words)) + ("" if sections else ("; " if words else "") + "not for Windows"),
        sections=sections,
        segments=segments,
        members=members,
    )
