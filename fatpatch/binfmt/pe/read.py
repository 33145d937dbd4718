"""PE files (.dll, .exe, .node) and COFF objects, read on any system (reference: PE/COFF specification)."""

from __future__ import annotations

import struct

from fatpatch.base.source import Source
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, Section

KIND = ContainerKind.PE
FILE_HEADER = struct.Struct("<HHIIIHH")
SECTION = struct.Struct("<8sIIIIIIHHI")
_MACHINES = {0x14C: "x86", 0x8664: "x86-64", 0xAA64: "aarch64"}
_DLL = 0x2000
_SYMBOL_SIZE = 18
_UNINITIALIZED = 0x80


def probe(source: Source) -> bool:
    """Whether an MZ header leads to a PE signature."""
    return source.peek(0, 2) == b"MZ" and _signature(source) is not None


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
    signature = _signature(source)
    at = 0 if signature is None else signature + 4
    machine, count, _, symbols, symbol_count, optional_size, flags = FILE_HEADER.unpack(source.read(at, FILE_HEADER.size))
    base = 0
    optional = source.peek(at + FILE_HEADER.size, optional_size)
    if len(optional) >= 32:
        base = int.from_bytes(optional[24:32] if optional[:2] == b"\x0b\x02" else optional[28:32], "little")
    kind = "object file" if signature is None else "DLL" if flags & _DLL else "executable"
    table = at + FILE_HEADER.size + optional_size
    room = max(source.size - table, 0) // SECTION.size
    if count > room:
        diagnostics.error(locator, at + 2, f"{count} sections announced, room for {room}", field="NumberOfSections")
        count = room
    strings = symbols + symbol_count * _SYMBOL_SIZE if symbols else 0
    sections = []
    for row in SECTION.iter_unpack(source.read(table, count * SECTION.size)):
        raw_name, virtual_size, address, raw_size, offset, _, _, _, _, characteristics = row
        name = _name(source, raw_name, strings)
        if not raw_size or characteristics & _UNINITIALIZED:
            continue
        size = min(raw_size, virtual_size) if virtual_size and signature is not None else raw_size
        if offset + size > source.size:
            message = f"{name} ends at {offset + size:#x}, the file at {source.size:#x}"
            diagnostics.error(locator, offset, message, field="SizeOfRawData")
            size = max(source.size - offset, 0)
        if size:
            sections.append(
                Section(
                    name=name,
                    offset=offset,
                    size=size,
                    address=base + address,
                    writable=bool(characteristics & 0x80000000),
                    executable=bool(characteristics & 0x20000000),
                )
            )
    found = tuple(sections)
    machine_words = _MACHINES.get(machine, f"machine {machine:#x}")
    return Container(kind=KIND, detail=f"{machine_words} {kind}", sections=found, segments=found, relocatable=signature is None)


def _signature(source: Source) -> int | None:
    at = int.from_bytes(source.peek(0x3C, 4), "little")
    return at if at and source.peek(at, 4) == b"PE\0\0" and at + 4 + FILE_HEADER.size <= source.size else None


def _name(source: Source, raw: bytes, strings: int) -> str:
    """The section name; ``/123`` means offset 123 of the COFF string table (mingw, objects)."""
    name = raw.rstrip(b"\0")
    if name[:1] == b"/" and name[1:].isdigit() and strings:
        long_name = source.peek(strings + int(name[1:]), 256)
        name = long_name[: long_name.find(b"\0")] if b"\0" in long_name else long_name
    return name.decode("utf-8", "backslashreplace")
