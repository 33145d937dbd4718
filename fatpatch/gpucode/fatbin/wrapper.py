"""Fatbin wrappers: the 24-byte records by which host code names its payloads (reference: fatbinary_section.h).

A wrapper holds a load address. In an object file the address is in a relocation, and in some shared objects only in a
RELATIVE addend, so both are looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.elf.elf64 import HEADER, RELA, SECTION, SYMBOL, SectionRow, counted, header_of, rows, section_rows
from fatpatch.formats import numbers as n
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, Section, Wrapper

LAYOUT = struct.Struct("<IIQQ")
SECTION_NAMES = (".nvFatBinSegment", ".nvFatBi", ".hipFatBinSegment", ".hipFatB")
HEADS = {n.WRAPPER_MAGIC: (n.FATBIN_MAGIC_BYTES,), n.HIP_WRAPPER_MAGIC: (n.BUNDLE_MAGIC[:4], n.CCOB_MAGIC)}
"""By the magic of a wrapper: the first four bytes of what it may lead to."""

_MAX_WRAPPERS = 1 << 20
_MAX_RELOCATIONS = 24 << 20
_MAX_OBJECT_RELOCATIONS = 1 << 20
_RELATIVE = frozenset({8, 1027})  # R_X86_64_RELATIVE, R_AARCH64_RELATIVE; their symbol index is 0


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
    if container.sections or container.kind != ContainerKind.ELF:
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
        if container.relocatable:
            moved = _object_relocations(source, section) if moved is None else moved
            target = moved.get(at + 8)
        else:
            if not address:
                moved = _relative_addends(source, container, section) if moved is None else moved
                address = moved.get(section.address + at + 8, 0)
            target = offset_of(container, address)
        pointers.append(Pointer(Wrapper(version=version, offset=place), target, magic))
    return pointers


def _searched(source: Source, container: Container, segment: Section) -> list[Pointer]:
    pointers = []
    for magic, heads in HEADS.items():
        at, end = segment.offset, segment.offset + segment.size
        while (at := source.find(magic.to_bytes(4, "little"), at, end)) >= 0:
            data = source.peek(at, LAYOUT.size)
            if len(data) == LAYOUT.size:
                _, version, address, _ = LAYOUT.unpack(data)
                target = offset_of(container, address)
                if version in (1, 2) and target is not None and source.peek(target, 4) in heads:
                    pointers.append(Pointer(Wrapper(version=version, offset=at), target, magic))
            at += 4
    return pointers


def _relative_addends(source: Source, container: Container, wrapped: Section) -> dict[int, int]:
    """Address to address: what the RELATIVE relocations put into the wrappers (lld stores zeros there)."""
    found: dict[int, int] = {}
    end = wrapped.address + wrapped.size
    for section in container.sections:
        if section.name == ".rela.dyn" and not found:
            table = rows(RELA, source.peek(section.offset, min(section.size, _MAX_RELOCATIONS)))
            found.update({place: addend for place, kind, addend in table if wrapped.address <= place < end and kind in _RELATIVE})
    return found


def _object_relocations(source: Source, wrapped: Section) -> dict[int, int]:
    """Place in the section to file offset, in an ELF object file."""
    header = header_of(source.peek(0, HEADER.size)) if source.peek(0, 4) == n.ELF_MAGIC else None
    if header is None or header.shentsize != SECTION.size:
        return {}
    header = counted(source, header)
    sections = section_rows(source.peek(header.shoff, header.shnum * SECTION.size))
    for table in sections:
        if (
            table.type == n.SHT_RELA
            and max(table.info, table.link) < len(sections)
            and sections[table.info].offset == wrapped.offset
            and table.size <= _MAX_OBJECT_RELOCATIONS
        ):
            symbols = sections[table.link].offset
            return dict(_object_targets(source, table, symbols, sections))
    return {}


def _object_targets(source: Source, table: SectionRow, symbols: int, sections: Sequence[SectionRow]) -> Iterator[tuple[int, int]]:
    """(place, file offset that it leads to) of the relocations to symbols of a section."""
    for place, info, addend in rows(RELA, source.peek(table.offset, table.size)):
        symbol = source.peek(symbols + (info >> 32) * SYMBOL.size, SYMBOL.size)
        if len(symbol) == SYMBOL.size:
            _, _, _, index, value, _ = SYMBOL.unpack(symbol)
            if 0 < index < min(len(sections), n.SHN_LORESERVE):
                yield place, sections[index].offset + value + addend
