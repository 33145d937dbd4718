"""ELF64 host files: executables, shared objects, object files; with or without section headers (reference: gABI)."""

from __future__ import annotations

from fatpatch.base.source import Source
from fatpatch.binfmt.elf.elf64 import HEADER, SECTION, SEGMENT, counted, header_of, section_rows, segments
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, Section

KIND = ContainerKind.ELF
_MAX_NAME = 1 << 10
_MAX_SEGMENTS = 512
_MACHINES = {
    n.EM_386: "x86",
    n.EM_ARM: "arm",
    n.EM_X86_64: "x86-64",
    n.EM_AARCH64: "aarch64",
    n.EM_CUDA: "CUDA",
    n.EM_AMDGPU: "AMDGPU",
}
_TYPES = {n.ET_REL: "object file", n.ET_EXEC: "executable", n.ET_DYN: "shared object"}


def probe(source: Source) -> bool:
    """Whether the source starts with the ELF magic."""
    return source.peek(0, 4) == n.ELF_MAGIC


def machine_of(source: Source) -> int | None:
    """e_machine of a 64-bit little-endian ELF; None for anything else."""
    data = source.peek(0, 20)
    if len(data) < 20 or data[:6] != b"\x7fELF\x02\x01":
        return None
    return int.from_bytes(data[18:20], "little")


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """Sections and loadable segments; what lies outside the file is a diagnostic and left out."""
    data = source.peek(0, HEADER.size)
    header = header_of(data)
    if header is None or data[4:6] != b"\x02\x01":
        if (cubin := _cubin32(data)) is not None:
            diagnostics.not_read(locator, 4, f"{cubin}: not read; CUDA 6.5 and its GPUs are the last that use such")
            return Container(kind=KIND, detail=cubin)
        words = "ends inside its ELF header" if header is None else "is not 64-bit little-endian: sections are not read"
        diagnostics.warning(locator, 4, words, field="e_ident")
        return Container(kind=KIND, detail="truncated" if header is None else "32-bit or big-endian")
    header = counted(source, header)
    kind, machine, phoff, shoff = header.type, header.machine, header.phoff, header.shoff
    phnum, shnum = header.phnum, header.shnum
    if phnum and (header.phentsize != SEGMENT.size or phoff + phnum * SEGMENT.size > source.size):
        diagnostics.error(locator, 32, f"{phnum} program headers at {phoff:#x} do not fit in {source.size:#x} bytes", field="e_phoff")
        phnum = 0
    if shnum and not header.sections_fit(source.size):
        message = f"{shnum} section headers at {shoff:#x} do not fit in {source.size:#x} bytes: searched without them"
        diagnostics.error(locator, 40, message, field="e_shoff")
        shnum = 0
    sections = _sections(source, shoff, shnum, header.shstrndx, locator, diagnostics)
    kind_words = _TYPES.get(kind, f"type {kind}")
    if kind == n.ET_DYN and phnum and _has_interpreter(source, phoff, phnum):
        kind_words = "position-independent executable"
    detail = f"{_MACHINES.get(machine, f'machine {machine}')} {kind_words}"
    if not sections:
        detail += ", no section headers"
    return Container(kind=KIND, detail=detail, sections=sections, segments=_segments(source, phoff, phnum), relocatable=kind == n.ET_REL)


def _cubin32(data: bytes) -> str | None:
    """``32-bit cubin of sm_20`` for the header of one."""
    if data[:6] != b"\x7fELF\x01\x01" or int.from_bytes(data[18:20], "little") != n.EM_CUDA or len(data) < 40:
        return None
    return f"32-bit cubin of sm_{data[36]}"


def _segments(source: Source, offset: int, count: int) -> tuple[Section, ...]:
    result = []
    table = source.read(offset, count * SEGMENT.size) if count else b""
    for index, row in enumerate(segments(table)):
        if row.type == n.PT_LOAD and row.offset < source.size and row.file_size:
            size = min(row.file_size, source.size - row.offset)
            result.append(
                Section(
                    name=f"LOAD[{index}]",
                    offset=row.offset,
                    size=size,
                    address=row.address,
                    writable=bool(row.flags & 2),
                    executable=bool(row.flags & 1),
                )
            )
    return tuple(result[:_MAX_SEGMENTS])


def _has_interpreter(source: Source, offset: int, count: int) -> bool:
    table = source.read(offset, count * SEGMENT.size)
    return any(row.type == n.PT_INTERP for row in segments(table))


def _sections(source: Source, offset: int, count: int, names: int, locator: str, diagnostics: Diagnostics) -> tuple[Section, ...]:
    if not count:
        return ()
    table = section_rows(source.read(offset, count * SECTION.size))
    strings = b""
    if names < count:
        strings = source.peek(table[names].offset, min(table[names].size, 1 << 24))
    if not strings:
        diagnostics.warning(locator, 62, f"section names are not readable (string table {names} of {count})", field="e_shstrndx")
    result = []
    for name_at, kind, flags, address, start, stored, _, _, _, _ in table:
        if kind in (0, n.SHT_NOBITS) or not stored:
            continue
        size = stored if start + stored <= source.size else max(source.size - start, 0)
        end = strings.find(b"\0", name_at, name_at + _MAX_NAME)
        name = strings[name_at : end if end >= 0 else name_at + _MAX_NAME].decode("utf-8", "backslashreplace")
        if size != stored:
            message = f"{name or 'a section'} ends at {start + stored:#x}, the file at {source.size:#x}"
            diagnostics.error(locator, start, message, field="sh_size")
        if size:
            result.append(Section(name, start, size, address, bool(flags & 1), bool(flags & 4)))
    return tuple(result)
