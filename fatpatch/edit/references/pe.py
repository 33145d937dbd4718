"""A linked PE file as a search for references sees it (reference: PE/COFF specification: exports, exception table, base relocations)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.binfmt.pe.tables import DEBUG, EXCEPTIONS, EXECUTABLE, EXPORTS, WRITABLE
from fatpatch.edit.references.parts import entries_of, followed_ends, without_holes
from fatpatch.edit.references.program import Export, Layout, LinkedProgram, Part, PayloadReference
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.wrapper import Pointer
from fatpatch.model.tree import Node

_MACHINES = {0x8664: n.EM_X86_64, 0xAA64: n.EM_AARCH64}
_BARREN = (".pdata", ".xdata", ".reloc", ".rsrc", ".debug", "/")
_MAX_DEBUG = 1 << 16
_EXPORT = struct.Struct("<IIHHIIIIIII")
_LONG, _HALF = struct.Struct("<I"), struct.Struct("<H")
_MAX_EXPORTS = 1 << 20
_MAX_FUNCTIONS = 48 << 20
_ROWS = {0x8664: 12, 0xAA64: 8}
"""Bytes of a row of the exception table, whose first field is the start of a function."""


def program_of(host: Node, pe: PeFile, pointers: Sequence[Pointer], own: frozenset[int]) -> LinkedProgram:
    """The program; ``own``: file offsets of the wrappers' pointers, which the edit itself sets."""
    holes = [(payload.offset, payload.offset + payload.size) for payload in host.payloads]
    holes += [(each.wrapper.offset + 8, each.wrapper.offset + 16) for each in pointers]  # what the edit itself sets
    holes += _debug_data(pe)
    functions: list[int] = []
    known = tuple(_relocated(pe, own))

    def starts() -> Sequence[int]:
        if not functions:
            functions.extend(_functions(pe))
        return functions

    return LinkedProgram(
        source=pe.source,
        locator=pe.locator,
        machine=_MACHINES.get(pe.machine, 0),
        parts=tuple(without_holes(_parts(host, pe), holes, pe.source.size, pe.locator)),
        fixed=pe.fixed,
        base=pe.base,
        relocated=lambda ranges: (each for each in known if each.target in ranges),
        exports=_exports(pe),
        functions=starts,
    )


def layout_of(host: Node, pe: PeFile) -> Layout:
    """Where sections begin, where payloads lie, and what is in these."""
    spans = [(start, start + each.size) for each in host.payloads for start in (pe.base + pe.address_of(each.offset),)]
    sections = [(pe.base + each.address, pe.base + each.end) for each in pe.sections]
    borders = frozenset([start for start, _ in sections] + [*followed_ends(spans, sections)])
    return Layout(borders, tuple(spans), frozenset(pe.base + pe.address_of(place) for place in entries_of(host.payloads)))


def _parts(host: Node, pe: PeFile) -> Iterator[Part]:
    names = {section.offset: section.name for section in host.layout.sections}
    for section in pe.sections:
        if not names.get(section.offset, "").startswith(_BARREN):
            size = min(section.raw_size, section.virtual_size or section.raw_size, max(pe.source.size - section.offset, 0))
            yield Part(section.offset, size, pe.base + section.address, bool(section.flags & EXECUTABLE), bool(section.flags & WRITABLE))


def _debug_data(pe: PeFile) -> Iterator[tuple[int, int]]:
    """File ranges of what the debug directory names: lists of addresses for tools, not for the program."""
    address, size = pe.directory(DEBUG)
    start = pe.offset_of(address) if size else None
    data = b"" if start is None else pe.source.peek(start, min(size, _MAX_DEBUG))
    for at in range(0, len(data) - 27, 28):
        length, _, offset = struct.unpack_from("<III", data, at + 16)
        yield offset, offset + length


def _relocated(pe: PeFile, own: frozenset[int]) -> Iterator[PayloadReference]:
    for place, size in pe.relocated():
        at = pe.offset_of(place)
        if at is not None and at not in own:
            yield PayloadReference(pe.base + place, int.from_bytes(pe.source.peek(at, size), "little"), "the relocated pointer")


def _exports(pe: PeFile) -> Iterator[Export]:
    address, size = pe.directory(EXPORTS)
    start = pe.offset_of(address) if size else None
    head = b"" if start is None else pe.source.peek(start, _EXPORT.size)
    if len(head) < _EXPORT.size:
        return
    _, _, _, _, _, first, count, named, functions, names, ordinals = _EXPORT.unpack(head)
    places = _column(pe, functions, count, _LONG)
    labels = dict(zip(_column(pe, ordinals, named, _HALF), _column(pe, names, named, _LONG), strict=False))
    for index, place in enumerate(places):
        if not place or address <= place < address + size:
            continue  # a forwarder
        name = f"ordinal {first + index}"
        if index in labels and (at := pe.offset_of(labels[index])) is not None:
            name = pe.source.peek(at, 512).split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
        yield Export(name, pe.base + place)


def _column(pe: PeFile, address: int, count: int, layout: struct.Struct) -> list[int]:
    start = pe.offset_of(address) if address else None
    data = b"" if start is None else pe.source.peek(start, min(count, _MAX_EXPORTS) * layout.size)
    return [value for (value,) in layout.iter_unpack(data[: len(data) // layout.size * layout.size])]


def _functions(pe: PeFile) -> list[int]:
    """The addresses at which functions start, by the table for unwinders."""
    address, size = pe.directory(EXCEPTIONS)
    start, row = pe.offset_of(address) if size else None, _ROWS.get(pe.machine)
    if start is None or row is None:
        return []
    data = pe.source.peek(start, min(size, _MAX_FUNCTIONS))
    starts = {int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data) - row + 1, row)}
    return sorted(pe.base + each for each in starts if each)
