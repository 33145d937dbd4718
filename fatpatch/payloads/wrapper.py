"""Fatbin wrappers: the 24-byte records by which host code names its payloads (reference: fatbinary_section.h).

A wrapper holds a load address. In an object file the address is in a relocation, and in some shared objects only in a
RELATIVE addend, so both are looked at.
"""

from __future__ import annotations

import io
import struct
from typing import NamedTuple

from fatpatch.formats import numbers as n
from fatpatch.model import Container, Section, Wrapper
from fatpatch.source import Source

LAYOUT = struct.Struct("<IIQQ")
SECTION_NAMES = (".nvFatBinSegment", ".nvFatBi", ".hipFatBinSegment", ".hipFatB")
_MAX_WRAPPERS = 1 << 20
_MAX_RELOCATIONS = 256 << 20
_RELATIVE = {"EM_X86_64": 8, "EM_AARCH64": 1027}


class Pointer(NamedTuple):
    """A wrapper and the file offset of the payload it names; None when the address lies in no section."""

    wrapper: Wrapper
    target: int | None
    magic: int


def read_wrappers(source: Source, container: Container) -> tuple[Pointer, ...]:
    """The wrappers of the sections made for them; where there are no section names, of the writable segments."""
    named = [section for section in container.sections if section.name in SECTION_NAMES]
    if named:
        return tuple(pointer for section in named for pointer in _in_section(source, container, section))
    if container.sections or container.kind != "elf":
        return ()
    return tuple(pointer for segment in container.segments if segment.writable for pointer in _searched(source, container, segment))


def offset_of(container: Container, address: int) -> int | None:
    """The file offset that is loaded at ``address``."""
    for segment in container.segments or container.sections:
        if segment.address <= address < segment.address + segment.size:
            return segment.offset + address - segment.address
    return None


def _in_section(source: Source, container: Container, section: Section) -> list[Pointer]:
    pointers = []
    data = source.peek(section.offset, min(section.size, _MAX_WRAPPERS * LAYOUT.size))
    moved: dict[int, int] | None = None
    for at in range(0, len(data) - LAYOUT.size + 1, LAYOUT.size):
        magic, version, address, _ = LAYOUT.unpack_from(data, at)
        if magic not in (n.WRAPPER_MAGIC, n.HIP_WRAPPER_MAGIC, n.HIP_KPACK_MAGIC):
            continue
        place = section.offset + at
        if container.relocatable or not address:
            moved = _relocations(source, section) if moved is None else moved
            target = moved.get(at + 8) if container.relocatable else offset_of(container, moved.get(section.address + at + 8, 0))
        else:
            target = offset_of(container, address)
        pointers.append(Pointer(Wrapper(version=version, offset=place), target, magic))
    return pointers


def _searched(source: Source, container: Container, segment: Section) -> list[Pointer]:
    pointers, at, end = [], segment.offset, segment.offset + segment.size
    while (at := source.find(n.WRAPPER_MAGIC_BYTES, at, end)) >= 0:
        data = source.peek(at, LAYOUT.size)
        if len(data) == LAYOUT.size:
            _, version, address, _ = LAYOUT.unpack(data)
            target = offset_of(container, address)
            if version in (1, 2) and target is not None and source.peek(target, 4) == n.FATBIN_MAGIC_BYTES:
                pointers.append(Pointer(Wrapper(version=version, offset=at), target, n.WRAPPER_MAGIC))
        at += 4
    return pointers


def _relocations(source: Source, wrapped: Section) -> dict[int, int]:
    """Where relocations put addresses: place to file offset (object files), or address to address (RELATIVE addends).

    Only needed where the stored pointer is zero, so pyelftools, which is slow, may do it.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.relocation import RelocationSection

    if source.size > _MAX_RELOCATIONS or source.peek(0, 4) != n.ELF_MAGIC:
        return {}
    result: dict[int, int] = {}
    try:
        elf = ELFFile(io.BytesIO(source.peek(0, source.size)))
        relative = _RELATIVE.get(elf["e_machine"])
        for section in elf.iter_sections():
            if not isinstance(section, RelocationSection):
                continue
            if elf["e_type"] == "ET_REL":
                if elf.get_section(section["sh_info"])["sh_offset"] != wrapped.offset:
                    continue
                symbols = elf.get_section(section["sh_link"])
                for relocation in section.iter_relocations():
                    symbol = symbols.get_symbol(relocation["r_info_sym"])
                    index = symbol["st_shndx"]
                    if isinstance(index, int):
                        base = elf.get_section(index)["sh_offset"]
                        result[relocation["r_offset"]] = base + symbol["st_value"] + relocation.entry.get("r_addend", 0)
            elif section.is_RELA():
                for relocation in section.iter_relocations():
                    if relocation["r_info_type"] == relative:
                        result[relocation["r_offset"]] = relocation["r_addend"]
    except (ELFError, ValueError, KeyError, AttributeError, TypeError, struct.error, OverflowError, MemoryError):
        return result
    return result
