"""Where host code calls a function of the CUDA runtime: through its import, or in a runtime linked in with its symbols.

Sources: gABI and x86-64 psABI (dynamic section, JUMP_SLOT and GLOB_DAT relocations), PE/COFF specification (import directory).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice

from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import HEADER, RELA, SECTION, SEGMENT, SYMBOL, ElfHeader, dynamic, header_of, rows, section_rows, segments
from fatpatch.binfmt.pe.tables import IMPORTS, PeTables
from fatpatch.formats import numbers as n
from fatpatch.hostcode.code import HostCode
from fatpatch.hostcode.constants import occurrences
from fatpatch.hostcode.references import CALL, CALL_SLOT, JUMP_SLOT, CodeReference, references
from fatpatch.model.kinds import ContainerKind

_SLOT_RELOCATIONS = frozenset({6, 7})  # R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT
_MAX_TABLE = 32 << 20
_MAX_DYNAMIC = 1 << 16
_MAX_IMPORTS = 1 << 16
_ENDBR = b"\xf3\x0f\x1e\xfa"


class EntryPoint(NamedTuple):
    """The addresses that a call to one function goes to, the pointers it goes through, and the evidence in words."""

    addresses: frozenset[int]
    slots: frozenset[int]
    evidence: str


def find_entry_point(host: HostCode, name: bytes) -> EntryPoint | None:
    """Where calls of the function ``name`` lead; None when no symbol and no import says so."""
    if host.kind == ContainerKind.PE:
        slots, defined, evidence = frozenset(_pe_slots(host, name)), frozenset[int](), "the import table"
    else:
        slots, defined, evidence = _elf_symbols(host, name)
    if not slots and not defined:
        return None
    return EntryPoint(defined | frozenset(_thunks(host, slots)), slots, evidence)


def calls(host: HostCode, entry: EntryPoint, most: int) -> list[CodeReference]:
    """The calls of an entry point, by address; at most so many."""
    found = (
        reference
        for form, targets in ((CALL, entry.addresses), (CALL_SLOT, entry.slots))
        if targets
        for reference in references(host, form, min(targets), max(targets) + 1)
        if reference.target in targets
    )
    return sorted(islice(found, most))


def _thunks(host: HostCode, slots: frozenset[int]) -> Iterator[int]:
    """The starts of stubs that jump through a slot: ``[endbr64] [bnd] jmp [slot]``."""
    if not slots:
        return
    named = tuple(part for part in host.code if part.name.startswith(".plt"))
    for reference in references(host, JUMP_SLOT, min(slots), max(slots) + 1, named or None):
        if reference.target not in slots:
            continue
        yield reference.start
        offset = host.offset_of(reference.start)
        before = host.source.peek(max(offset - 5, 0), 5) if offset is not None else b""
        if before[-1:] == b"\xf2":
            yield reference.start - 1
            before, start = before[:-1], reference.start - 1
        else:
            start = reference.start
        if before[-4:] == _ENDBR:
            yield start - 4


def _elf_symbols(host: HostCode, name: bytes) -> tuple[frozenset[int], frozenset[int], str]:
    header = header_of(host.source.peek(0, HEADER.size))
    assert header is not None
    slots, defined = _dynamic(host, header, name)
    if slots or defined:
        return frozenset(slots), frozenset(defined), "a dynamic symbol"
    return frozenset(), frozenset(_local(host, header, name)), "a symbol of the runtime that is linked in"


def _dynamic(host: HostCode, header: ElfHeader, name: bytes) -> tuple[set[int], set[int]]:
    """The slots that dynamic relocations fill with the symbol, and its own address when the file defines it."""
    source, tags = host.source, {}
    for segment in segments(source.peek(header.phoff, header.phnum * SEGMENT.size)):
        if segment.type == n.PT_DYNAMIC:
            tags = dynamic(source.peek(segment.offset, min(segment.file_size, _MAX_DYNAMIC)))
            break
    strings = _table(host, tags.get(n.DT_STRTAB, 0), tags.get(n.DT_STRSZ, 0))
    wanted = set(occurrences(strings, name + b"\0"))
    if not wanted:
        return set(), set()
    slots: set[int] = set()
    defined: set[int] = set()
    found = [
        (place, info >> 32)
        for at, size in ((n.DT_JMPREL, n.DT_PLTRELSZ), (n.DT_RELA, n.DT_RELASZ))
        for place, info, _ in rows(RELA, _table(host, tags.get(at, 0), tags.get(size, 0)))
        if info & 0xFFFFFFFF in _SLOT_RELOCATIONS
    ]
    symbols = _table(host, tags.get(n.DT_SYMTAB, 0), (max((index for _, index in found), default=0) + 1) * SYMBOL.size)
    for place, index in found:
        if (index + 1) * SYMBOL.size <= len(symbols):
            name_at, _, _, section, value, _ = SYMBOL.unpack_from(symbols, index * SYMBOL.size)
            if name_at in wanted:
                slots.add(place)
                if section:
                    defined.add(value)
    return slots, defined


def _local(host: HostCode, header: ElfHeader, name: bytes) -> Iterator[int]:
    """The addresses that the static symbol table gives a function."""
    sections = section_rows(host.source.peek(header.shoff, header.shnum * SECTION.size))
    for section in sections:
        if section.type != n.SHT_SYMTAB or section.link >= len(sections):
            continue
        strings = host.source.peek(sections[section.link].offset, min(sections[section.link].size, _MAX_TABLE))
        wanted = set(occurrences(strings, name + b"\0"))
        if not wanted:
            return
        for name_at, _, _, index, value, _ in rows(SYMBOL, host.source.peek(section.offset, min(section.size, _MAX_TABLE))):
            if name_at in wanted and index and value:
                yield value
        return  # a file has one such table


def _pe_slots(host: HostCode, name: bytes) -> Iterator[int]:
    """The addresses of the import table that hold the function."""
    source = host.source
    tables = PeTables(source)
    if not tables.wide:
        return
    base = tables.base
    descriptor, left = host.offset_of(base + tables.directory(IMPORTS)[0]), _MAX_IMPORTS
    while descriptor is not None and left > 0:
        row = source.peek(descriptor, 20)
        if len(row) < 20 or not any(row):
            return
        lookup, _, _, _, table = struct.unpack("<IIIII", row)
        names = host.offset_of(base + (lookup or table))
        index = 0
        while names is not None and left > 0:
            entry = int.from_bytes(source.peek(names + 8 * index, 8), "little")
            if not entry:
                break
            if not entry >> 63:
                text = host.offset_of(base + (entry & 0x7FFFFFFF))
                if text is not None and source.peek(text + 2, len(name) + 1) == name + b"\0":
                    yield base + table + 8 * index
            index += 1
            left -= 1
        descriptor += 20
        left -= 1


def _table(host: HostCode, address: int, size: int) -> bytes:
    offset = host.offset_of(address) if address else None
    return host.source.peek(offset, min(size, _MAX_TABLE)) if offset is not None else b""
