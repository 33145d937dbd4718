"""Payloads that no longer fit their place in a PE file: in a new section, or in the last one grown (reference: graft, section E)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fatpatch.base.errors import EditError, UnsupportedError
from fatpatch.base.overlay import Overlay, Write, padding
from fatpatch.base.source import Source
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.binfmt.pe.tables import IMAGE_SIZE, INITIALIZED_DATA, PeSection
from fatpatch.edit.host.coff_symbols import symbols_followed
from fatpatch.edit.host.host import IN_PLACE, HostEdit, Options, freed_ranges, shrunk_in_place, split_in_place
from fatpatch.edit.host.pe_seal import sealed, without_signature
from fatpatch.edit.host.pe_wrappers import wrappers_led
from fatpatch.edit.payload.new_payload import NewPayload, common_alignment, room_for
from fatpatch.model.kinds import Vendor
from fatpatch.model.tree import Node

_NAMES = {True: b".nv_fatb", False: b".hip_fat"}
_READ_ONLY_DATA = 0x40000040
_DISCARDABLE = 0x02000000
_MAX_IMAGE = 0x7FFFFFFF
_MAX_BLANK = 1 << 28
_LONG, _HALF = struct.Struct("<I"), struct.Struct("<H")


def edit_pe(host: Node, renewed: Sequence[NewPayload], options: Options) -> HostEdit:
    """Put new payloads into a PE file: in place where they fit, else in one new section."""
    if options.compact and (edit := _compact(host, renewed, options)) is not None:
        return edit
    pe = PeFile(host.content, host.locator)
    writes, moved = split_in_place(host, renewed)
    placements = {new.payload.locator: IN_PLACE for new in renewed if new not in moved}
    kept, signed, notes = without_signature(pe, options)
    writes += signed
    tail: list[Source] = []
    offsets: dict[int, int] = {}
    addresses: dict[int, int] = {}
    if moved:
        alignment = common_alignment(moved)
        size = sum(room_for(new, alignment) for new in moved)
        name = _section_name(moved, host.locator)
        placed = _new_section(pe, size, kept, name) if pe.has_room() else _grown_section(pe, size, kept, alignment)
        start, address, changes, placement = placed
        writes += changes
        tail.append(Source.zeros(start - kept))
        offset = start
        for new in moved:
            addresses[new.payload.offset] = pe.base + address
            offsets[new.payload.offset] = offset
            tail += [new.source(), padding(new.size, alignment)]
            offset += room_for(new, alignment)
            address += room_for(new, alignment)
            placements[new.payload.locator] = placement
        tail.append(padding(size, pe.file_alignment))
        number = len(pe.sections) + 1 if pe.has_room() else pe.last + 1
        writes += symbols_followed(pe, addresses, moved, number)
        writes += freed_ranges(moved)
    writes += wrappers_led(host, pe, addresses, shrunk=shrunk_in_place(renewed, moved))
    return HostEdit(sealed(pe, Overlay.of(host.content, writes, tail, kept)), placements, offsets, tuple(notes))


def _compact(host: Node, renewed: Sequence[NewPayload], options: Options) -> HostEdit | None:
    from fatpatch.edit.host.compact_pe import compact_pe

    return compact_pe(host, renewed, options)


def _section_name(moved: Sequence[NewPayload], locator: str) -> bytes:
    """What the linker would call the section: readers go by the name."""
    names = {_NAMES[new.payload.vendor == Vendor.NVIDIA] for new in moved}
    if len(names) > 1:
        hint = "graft the images of one vendor, then those of the other"
        raise UnsupportedError("CUDA and AMD code cannot be put into one section", locator=locator, hint=hint)
    return names.pop()


def _new_section(pe: PeFile, size: int, kept: int, name: bytes) -> tuple[int, int, list[Write], str]:
    start = kept + -kept % pe.file_alignment
    end = max(section.end for section in pe.sections)
    address = end + -end % pe.section_alignment
    raw = size + -size % pe.file_alignment
    row = PeSection(name, size, address, raw, start, 0, 0, 0, 0, _READ_ONLY_DATA)
    writes = [
        Write.of(pe.file_header + 2, _HALF.pack(len(pe.sections) + 1)),
        pe.row(len(pe.sections), row),
        *_sizes(pe, address + size, raw),
    ]
    return start, address, writes, f"new section {name.decode()}"


def _grown_section(pe: PeFile, size: int, kept: int, alignment: int) -> tuple[int, int, list[Write], str]:
    """The last section taken up to the end of the file and beyond: what lay behind it is mapped too, and does no harm."""
    index = pe.last
    last = pe.sections[index]
    if not last.offset or last.offset != max(section.offset for section in pe.sections):
        raise EditError("has no room for a section header, and its last section is not last in the file", locator=pe.locator)
    if last.virtual_size - last.raw_size > _MAX_BLANK:
        raise EditError("has no room for a section header, and its last section is mostly blank", locator=pe.locator)
    blank = pe.source.peek(last.offset + last.raw_size, max(last.virtual_size - last.raw_size, 0))
    if any(blank):
        hint = "graft fewer images, or one that fits in place"
        message = "has no room for a section header, and its last section goes on in memory over bytes that the file has for something else"
        raise EditError(message, locator=pe.locator, hint=hint)
    start = max(kept, last.offset + last.virtual_size)
    start += -(start - last.offset) % max(pe.file_alignment, alignment)
    length = start - last.offset + size
    raw = length + -length % pe.file_alignment
    grown = last._replace(virtual_size=length, raw_size=raw, flags=last.flags & ~_DISCARDABLE)
    writes = [pe.row(index, grown), *_sizes(pe, last.address + length, raw - last.raw_size)]
    return start, last.address + start - last.offset, writes, "last section grown (no room for a section header)"


def _sizes(pe: PeFile, end: int, added: int) -> list[Write]:
    image = end + -end % pe.section_alignment
    if image > _MAX_IMAGE:
        raise EditError(f"would take {image:#x} bytes in memory, more than Windows loads", locator=pe.locator, hint="graft fewer images")
    return [pe.put(IMAGE_SIZE, image), pe.put(INITIALIZED_DATA, pe.long(INITIALIZED_DATA) + added)]
