"""A PE file that shrinks: payloads packed together, and the bytes behind them taken out of the file.

The section keeps its size in memory, where blank pages follow: so every address holds, and no section header is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from fatpatch.base.overlay import Write
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.binfmt.pe.tables import DEBUG, INITIALIZED_DATA, PeSection
from fatpatch.edit.host.coff_symbols import followed, symbol_table
from fatpatch.edit.host.compaction import (
    Cut,
    PlacedModule,
    compacted,
    laid_out,
    others_in_place,
    refuse_zip_behind,
    section_parts,
    shift,
    tactics_of,
)
from fatpatch.edit.host.host import HostEdit, Options
from fatpatch.edit.host.pe_seal import sealed, without_signature
from fatpatch.edit.host.pe_wrappers import wrappers_led
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.gpucode.locate import PAYLOAD_SECTIONS
from fatpatch.model.tree import Node

_ALIGNMENT = 16
_DEBUG_ROW = struct.Struct("<IIHHIIII")
_MAX_DEBUG = 1 << 16
_LONG = struct.Struct("<I")


class PeRegion(NamedTuple):
    """A payload section by its number in the table: its header, its payloads, and the whole file blocks that it can do without."""

    number: int
    section: PeSection
    placed_modules: tuple[PlacedModule, ...]
    removed: int

    @property
    def cut(self) -> Cut:
        """What it takes out of the file."""
        start = self.section.offset
        return Cut(start, tuple(section_parts(self.placed_modules)), start + self.section.raw_size, self.removed)

    @property
    def used(self) -> int:
        """Bytes that its payloads take now."""
        return self.placed_modules[-1].end if self.placed_modules else 0


def compact_pe(host: Node, renewed: Sequence[NewPayload], options: Options) -> HostEdit | None:
    """The file without the room that its payloads no longer need; None when that is less than a block everywhere."""
    pe = PeFile(host.content, host.locator)
    refuse_zip_behind(host)
    regions = list(_regions(host, pe, renewed))
    if not regions:
        return None
    kept, writes, notes = without_signature(pe, options)
    cuts = [each.cut for each in regions]
    inner = {module.new.payload.offset: (region, module) for region in regions for module in region.placed_modules}
    addresses = {offset: pe.base + region.section.address + module.start for offset, (region, module) in inner.items()}
    moving = {offset: address for offset, address in addresses.items() if address != pe.base + pe.address_of(offset)}
    writes += [
        *others_in_place(host, renewed, inner),
        *wrappers_led(host, pe, moving, shrunk=[offset for offset in _shrunk(regions) if offset not in moving]),
        *_symbols(pe, regions, cuts),
        *_debug_rows(pe, cuts),
    ]
    for index, section in enumerate(pe.sections):
        region = next((each for each in regions if each.number == index), None)
        now = section._replace(offset=shift(cuts, section.offset) if section.offset else 0)
        if region is not None:
            now = now._replace(
                raw_size=section.raw_size - region.removed, virtual_size=max(section.virtual_size, region.used) or section.raw_size
            )
        writes.append(pe.row(index, now))
    writes.append(pe.put(INITIALIZED_DATA, max(pe.long(INITIALIZED_DATA) - sum(each.removed for each in regions), 0)))
    overlay = compacted(host.content, writes, cuts, kept)
    moves = {payload.offset: _place(payload.offset, inner, cuts) for payload in host.payloads}
    return HostEdit(sealed(pe, overlay), tactics_of(renewed, inner), moves, tuple(notes), compacted=True)


def _shrunk(regions: Sequence[PeRegion]) -> list[int]:
    return [
        module.new.payload.offset for region in regions for module in region.placed_modules if module.new.size < module.new.payload.size
    ]


def _place(offset: int, inner: dict[int, tuple[PeRegion, PlacedModule]], cuts: Sequence[Cut]) -> int:
    if offset not in inner:
        return shift(cuts, offset)
    region, module = inner[offset]
    return shift(cuts, region.section.offset) + module.start


def _regions(host: Node, pe: PeFile, renewed: Sequence[NewPayload]) -> Iterator[PeRegion]:
    names = {section.offset: section.name for section in host.layout.sections}
    by_offset = {new.payload.offset: new for new in renewed}
    order = sorted(range(len(pe.sections)), key=lambda index: pe.sections[index].offset)
    for index in order:
        section = pe.sections[index]
        end = section.offset + section.raw_size
        if names.get(section.offset) not in PAYLOAD_SECTIONS or not any(section.offset <= offset < end for offset in by_offset):
            continue
        placed_modules, used = laid_out(host, by_offset, section.offset, section.raw_size, _ALIGNMENT)
        needed = used + -used % pe.file_alignment
        if needed < section.raw_size:
            yield PeRegion(index, section, tuple(placed_modules), section.raw_size - needed)


def _debug_rows(pe: PeFile, cuts: Sequence[Cut]) -> Iterator[Write]:
    """The debug directory names places in the file (PE/COFF specification, debug directory)."""
    address, size = pe.directory(DEBUG)
    start = pe.offset_of(address) if size else None
    if start is None:
        return
    for at in range(start, start + min(size, _MAX_DEBUG) - _DEBUG_ROW.size + 1, _DEBUG_ROW.size):
        *fields, offset = _DEBUG_ROW.unpack(pe.source.read(at, _DEBUG_ROW.size))
        if offset:
            yield Write.of(at, _DEBUG_ROW.pack(*fields, shift(cuts, offset)))


def _symbols(pe: PeFile, regions: Sequence[PeRegion], cuts: Sequence[Cut]) -> Iterator[Write]:
    """The COFF symbol table at its new place, and symbols of payloads led to where these are."""
    symbols, _ = symbol_table(pe)
    if not symbols:
        return
    yield Write.of(pe.file_header + 8, _LONG.pack(shift(cuts, symbols)))
    places = {
        region.number + 1: {module.new.payload.offset - region.section.offset: module.start for module in region.placed_modules}
        for region in regions
    }
    yield from followed(pe, lambda number, value: (number, places[number].get(value, 0)) if number in places else None)
