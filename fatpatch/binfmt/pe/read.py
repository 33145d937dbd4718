"""PE files (.dll, .exe, .node) and COFF objects, read on any system (reference: PE/COFF specification)."""

from __future__ import annotations

from fatpatch.base.source import Source
from fatpatch.binfmt.pe.tables import DLL, EXECUTABLE, FILE_HEADER, SECTION, UNINITIALIZED, WRITABLE, PeTables, signature_at
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, Section

KIND = ContainerKind.PE
_MACHINES = {0x14C: "x86", 0x8664: "x86-64", 0xAA64: "aarch64"}
_SYMBOL_SIZE = 18


def probe(source: Source) -> bool:
    """Whether an MZ header leads to a PE signature."""
    return signature_at(source) is not None


def probe_object(source: Source) -> bool:
    """Whether this can be a COFF object: no magic, so every size must fit."""
    data = source.peek(0, FILE_HEADER.size)
    if len(data) < FILE_HEADER.size:
        return False
    machine, count, _, symbols, symbol_count, optional, _ = FILE_HEADER.unpack(data)
    fits = FILE_HEADER.size + count * SECTION.size <= source.size and symbols + symbol_count * _SYMBOL_SIZE <= source.size
    return machine in _MACHINES and 0 < count < 65280 and optional == 0 and fits


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """Sections with their load addresses (image base included)."""
    tables = PeTables(source)
    kind = "object file" if not tables.linked else "DLL" if tables.flags & DLL else "executable"
    if tables.count > len(tables.sections):
        message = f"{tables.count} sections announced, room for {len(tables.sections)}"
        diagnostics.error(locator, tables.file_header + 2, message, field="NumberOfSections")
    strings = tables.symbols + tables.symbol_count * _SYMBOL_SIZE if tables.symbols else 0
    sections = []
    for row in tables.sections:
        name = _name(source, row.name, strings)
        if not row.raw_size or row.flags & UNINITIALIZED:
            continue
        size = min(row.raw_size, row.virtual_size) if row.virtual_size and tables.linked else row.raw_size
        if row.offset + size > source.size:
            message = f"{name} ends at {row.offset + size:#x}, the file at {source.size:#x}"
            diagnostics.error(locator, row.offset, message, field="SizeOfRawData")
            size = max(source.size - row.offset, 0)
        if size:
            sections.append(
                Section(
                    name=name,
                    offset=row.offset,
                    size=size,
                    address=tables.base + row.address,
                    writable=bool(row.flags & WRITABLE),
                    executable=bool(row.flags & EXECUTABLE),
                )
            )
    found = tuple(sections)
    machine_words = _MACHINES.get(tables.machine, f"machine {tables.machine:#x}")
    return Container(kind=KIND, detail=f"{machine_words} {kind}", sections=found, segments=found, relocatable=not tables.linked)


def _name(source: Source, raw: bytes, strings: int) -> str:
    """The section name; ``/123`` means offset 123 of the COFF string table (mingw, objects)."""
    name = raw.rstrip(b"\0")
    if name[:1] == b"/" and name[1:].isdigit() and strings:
        long_name = source.peek(strings + int(name[1:]), 256)
        name = long_name[: long_name.find(b"\0")] if b"\0" in long_name else long_name
    return name.decode("utf-8", "backslashreplace")
