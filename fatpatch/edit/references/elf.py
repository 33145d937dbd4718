"""A linked ELF file as a search for references sees it (reference: gABI; LSB, .eh_frame_hdr)."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Collection, Iterator, Sequence

from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.elf.elf64 import SYMBOL
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.edit.references.parts import entries_of, followed_ends, without_holes
from fatpatch.edit.references.program import Export, Layout, LinkedProgram, Part, PayloadReference, Ranges
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.wrapper import Pointer
from fatpatch.model.tree import Node

_TABLES = frozenset({2, 3, 4, 5, 9, 11, 19, 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF})
"""Section types without pointers to data: symbols, strings, relocations, hashes, versions."""
_UNWINDING = lazy_pattern(r"\.eh_frame(_hdr)?|\.gcc_except_table(\..*)?")
_UNREFERENCED = lazy_pattern(_UNWINDING.pattern + r"|\.note.*")
_UNREFERENCED_IF_STATIC = lazy_pattern(r"\.eh_frame_hdr|\.gcc_except_table(\..*)?|\.note.*")
"""The start files of a static program register .eh_frame by its address (crtstuff.c, frame_dummy)."""
_LINKER_SYMBOLS = frozenset({"_end", "end", "_edata", "edata", "_etext", "etext", "__etext", "__bss_start"})
_HEADER_TABLE = b"\x01\x1b\x03\x3b"
"""Version 1; .eh_frame relative to here, sdata4; the count udata4; the table relative to .eh_frame_hdr, sdata4."""
_ABSOLUTE = 0xFFF1
"""SHN_ABS: the value is a number rather than an address."""
_SECTION_SYMBOL = 3
_MAX_FUNCTIONS = 4 << 20
_MAX_SYMBOLS = 1 << 22
_PAIR = 8
"""Bytes of a row of the table: where a function starts, and its entry in .eh_frame."""


def program_of(host: Node, elf: ElfFile, pointers: Sequence[Pointer], own: frozenset[int]) -> LinkedProgram:
    """The program; ``own``: addresses of the wrappers' pointers, which the edit itself sets."""
    holes = [(payload.offset, payload.offset + payload.size) for payload in host.payloads]
    holes += [(each.wrapper.offset + 8, each.wrapper.offset + 16) for each in pointers]  # what the edit itself sets
    functions: list[int] = []

    def relocated(ranges: Ranges) -> Iterator[PayloadReference]:
        for place, target in elf.relocations():
            if ranges.low <= target < ranges.high and target in ranges and place not in own:
                yield PayloadReference(place, target, "the relocation")

    def starts() -> Sequence[int]:
        if not functions:
            functions.extend(_functions(elf))
        return functions

    return LinkedProgram(
        source=elf.source,
        locator=elf.locator,
        machine=elf.machine,
        parts=tuple(without_holes(_parts(host, elf), holes, elf.source.size, elf.locator)),
        fixed=elf.type == n.ET_EXEC,
        base=None,
        relocated=relocated,
        exports=_exports(host, elf),
        functions=starts,
        gots=tuple(_gots(host, elf)),
    )


def layout_of(host: Node, elf: ElfFile) -> Layout:
    """What lies where; where no section headers say what begins somewhere that code may refer to, only payloads are known."""
    names = _names(host)
    loaded = [row for row in elf.sections if row.flags & n.SHF_ALLOC]
    spans = [(start, start + each.size) for each in host.payloads for start in (elf.address_of(each.offset),)]
    static = elf.type == n.ET_EXEC and not any(segment.type == n.PT_DYNAMIC for segment in elf.segments)
    unreferenced = _UNREFERENCED_IF_STATIC if static else _UNREFERENCED
    borders = {row.address for row in loaded if not unreferenced.fullmatch(names.get(row.offset, ""))}
    borders.update(followed_ends(spans, [(row.address, row.address + row.size) for row in loaded]))
    borders -= set(_end_labels(elf, {end for _, end in spans} & borders))
    return Layout(frozenset(borders), tuple(spans), frozenset(elf.address_of(place) for place in entries_of(host.payloads)))


def _end_labels(elf: ElfFile, ends: Collection[int]) -> Iterator[int]:
    """Those of the ends of payloads that a symbol of the section right before them names, so that they are an end label."""
    closed = {index for index, row in enumerate(elf.sections) if row.address + row.size in ends}
    for table in elf.sections if ends else ():
        if table.type == n.SHT_SYMTAB:
            data = elf.source.peek(table.offset, min(table.size, _MAX_SYMBOLS * SYMBOL.size))
            for _, info, _, section, value, _ in SYMBOL.iter_unpack(data[: len(data) // SYMBOL.size * SYMBOL.size]):
                if section in closed and value in ends and info & 15 != _SECTION_SYMBOL:
                    yield value


def _names(host: Node) -> dict[int, str]:
    return {section.offset: section.name for section in host.layout.sections}


def _gots(host: Node, elf: ElfFile) -> set[int]:
    """Addresses that a linker may have given to _GLOBAL_OFFSET_TABLE_."""
    names = _names(host)
    found = {row.address for row in elf.sections if names.get(row.offset) in (".got", ".got.plt")}
    return found | ({elf.dynamic_value(n.DT_PLTGOT)} - {0})


def _parts(host: Node, elf: ElfFile) -> Iterator[Part]:
    if not elf.sections:
        for segment in elf.loads:
            yield Part(
                segment.offset,
                min(segment.file_size, elf.source.size),
                segment.address,
                bool(segment.flags & n.PF_X),
                bool(segment.flags & n.PF_W),
            )
        return
    names = _names(host)
    for row in elf.sections:
        loaded = row.flags & n.SHF_ALLOC and row.type not in (0, n.SHT_NOBITS) and row.type not in _TABLES
        if loaded and not _UNWINDING.fullmatch(names.get(row.offset, "")):
            yield Part(row.offset, row.size, row.address, bool(row.flags & n.SHF_EXECINSTR), bool(row.flags & n.SHF_WRITE))


def _exports(host: Node, elf: ElfFile) -> Iterator[Export]:
    """The dynamic symbols that the file defines."""
    offsets = [payload.offset for payload in host.payloads]
    ends = {
        index: row.address + row.size
        for index, row in enumerate(elf.sections)
        if any(row.offset <= at < row.offset + row.size for at in offsets)
    }
    table, strings, count = elf.dynamic_symbols()
    data = elf.source.peek(table, min(count, _MAX_SYMBOLS) * SYMBOL.size)
    for name_at, info, _, section, value, _ in SYMBOL.iter_unpack(data[: len(data) // SYMBOL.size * SYMBOL.size]):
        if section not in (0, _ABSOLUTE) and value and info & 15 != 6:  # not thread-local
            name = elf.source.peek(strings + name_at, 512).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
            if name not in _LINKER_SYMBOLS:
                yield Export(name, value, ends.get(section) == value)


def _functions(elf: ElfFile) -> list[int]:
    """The addresses at which functions start, by the sorted table for unwinders."""
    header = next((segment for segment in elf.segments if segment.type == n.PT_GNU_EH_FRAME), None)
    if header is None:
        return []
    data = elf.source.peek(header.offset, min(header.file_size, 12 + _MAX_FUNCTIONS * _PAIR))
    if data[:4] != _HEADER_TABLE or len(data) < 12:
        return []
    count = min(int.from_bytes(data[8:12], "little"), (len(data) - 12) // _PAIR)
    starts = array("i", data[12 : 12 + count * _PAIR])[::2]
    if sys.byteorder == "big":
        starts.byteswap()
    return sorted({header.address + start for start in starts})
