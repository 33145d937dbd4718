"""Fatbins and bundles that no longer fit their place in an ELF file: appended in a new segment, found through the old wrapper.

Which placement loads, survives ``strip`` and ``patchelf``, and is seen by NVIDIA's tools was measured (reference: graft, section B).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fatpatch.base.errors import UnsupportedError
from fatpatch.base.overlay import Overlay, Write, padding
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.elf.elf64 import SECTION, SEGMENT, SectionRow, Segment
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.edit.host.compact_elf import compact_elf
from fatpatch.edit.host.elf_symbols import symbols_of_moved
from fatpatch.edit.host.elf_wrappers import retarget
from fatpatch.edit.host.host import IN_PLACE, HostEdit, Options, freed_ranges, shrunk_in_place, split_in_place
from fatpatch.edit.payload.new_payload import NewPayload, common_alignment, room_for
from fatpatch.formats import numbers as n
from fatpatch.gpucode.locate import FATBIN_SECTIONS, PAYLOAD_SECTIONS
from fatpatch.model.kinds import Vendor
from fatpatch.model.tree import Node

_ALIGNMENT = 16
_PAGE = 0x1000
_MAX_GAP = 1 << 30
_MAX_SECTIONS = 0xFEFF
_E_PHOFF, _E_SHOFF, _E_PHNUM, _E_SHNUM = 32, 40, 56, 60
_WORD, _HALF = struct.Struct("<Q"), struct.Struct("<H")


class Placement(NamedTuple):
    """Where the new bytes go: the segment that will hold them, its place in the file, and how the tables change for it.

    ``table``: bytes of the program headers that lie right before them, 0 when those stay where they are.
    """

    placement: str
    segments: tuple[Segment, ...]
    start: int
    address: int
    table: int = 0
    note: str = ""


def edit_elf(host: Node, renewed: Sequence[NewPayload], options: Options) -> HostEdit:
    """Put new payloads into an ELF file: in place where they fit, else in one new segment."""
    elf = ElfFile(host.content, host.locator)
    elf.refuse_cut_off()
    compact_notes: list[str] = []
    if options.compact:
        edit, compact_notes = compact_elf(host, renewed)
        if edit is not None:
            return edit
    writes, moved = split_in_place(host, renewed)
    placements = {new.payload.locator: IN_PLACE for new in renewed if new not in moved}
    if not moved:
        writes += retarget(host, elf, {}, shrunk=shrunk_in_place(renewed, moved))
        return HostEdit(Overlay.of(host.content, writes), placements, {}, tuple(compact_notes))
    whole = options.cuobjdump
    cuda = all(new.payload.vendor == Vendor.NVIDIA for new in moved)
    if whole and not cuda:
        raise UnsupportedError("--cuobjdump is for CUDA, and this edit is for AMD", locator=host.locator, hint="leave it out")
    if whole:
        moved = _with_neighbours(host, elf, renewed)
        writes = []
    alignment = common_alignment(moved)
    sizes = [room_for(new, alignment) for new in moved]
    placed = _place(elf, sum(sizes), alignment)
    offset, address = placed.start, placed.address
    moves, offsets, parts = {}, {}, []
    for new, size in zip(moved, sizes, strict=True):
        moves[new.payload.offset] = (elf.address_of(new.payload.offset), address)
        offsets[new.payload.offset] = offset
        parts += [new.source(), padding(new.size, alignment)]
        placements[new.payload.locator] = placed.placement
        address += size
        offset += size
    writes += retarget(host, elf, moves, shrunk=shrunk_in_place(renewed, moved))
    writes += symbols_of_moved(elf, moves, moved, None if whole else len(elf.sections))
    tail = [Source.zeros(placed.start - host.content.size - placed.table)]
    writes += _program_headers(elf, placed, tail)
    tail += parts
    writes += _section_headers(elf, moved, placed, offset, tail, alignment, whole=whole)
    notes = [*compact_notes, *([placed.note] if placed.note else [])]
    writes += freed_ranges(moved)
    if whole:
        placements = {locator: f"{placement}, all fatbins of the section moved with it" for locator, placement in placements.items()}
    elif elf.sections and cuda:
        hint = "" if options.rebuild else "; --cuobjdump moves all of them"
        notes.append(f"NVIDIA's cuobjdump reads only the first .nv_fatbin section and will not list the new image{hint}")
    return HostEdit(Overlay.of(host.content, writes, tail), placements, offsets, tuple(notes))


def _with_neighbours(host: Node, elf: ElfFile, renewed: Sequence[NewPayload]) -> list[NewPayload]:
    """All fatbins of the sections concerned, in order: the edited ones new, the others as they are."""
    if not elf.sections:
        raise UnsupportedError("--cuobjdump needs section headers, and the file has none", locator=host.locator)
    edited = {new.payload.offset: new for new in renewed}
    sections = {section for offset in edited if (section := elf.section_of(offset)) is not None}
    if len(sections) != 1:
        message = "--cuobjdump moves the fatbins of one section, these lie in several"
        raise UnsupportedError(message, locator=host.locator, hint="graft into one section at a time, with --module")
    (section,) = sections
    other = next((new.payload.section for new in renewed if new.payload.section not in FATBIN_SECTIONS), None)
    if other is not None:
        hint = "leave it out: cuobjdump reads fatbin sections only"
        raise UnsupportedError(
            f"--cuobjdump moves whole fatbin sections, and {other} holds other things too", locator=host.locator, hint=hint
        )
    return [
        edited.get(payload.offset) or NewPayload(payload, (host.content.slice(payload.offset, payload.size),), ())
        for payload in host.payloads
        if section.offset <= payload.offset < section.offset + section.size
    ]


def _place(elf: ElfFile, size: int, alignment: int) -> Placement:
    """The first placement that this file allows."""
    loads = elf.loads
    end = max(segment.address + segment.memory_size for segment in loads)
    page = max(_PAGE, *(segment.alignment for segment in loads))
    start = elf.source.size + -elf.source.size % alignment
    last = loads[-1]
    if _can_grow(elf, last) and (last.address - last.offset) % alignment == 0:
        length = start + size - last.offset
        grown = last._replace(file_size=length, memory_size=length)
        segments = tuple(grown if segment is last else segment for segment in elf.segments)
        return Placement("last segment grown", segments, start, last.address + start - last.offset)
    address = end + -end % page + start % page
    load = Segment(n.PT_LOAD, n.PF_R, start, address, address, size, size, page)
    slot, note = _free_slot(elf)
    if slot is not None:
        return Placement("new segment in a PT_NOTE slot", _inserted(elf.segments, load, slot), start, address, note=note)
    return _moved_table(elf, size, end, page, alignment)


def _can_grow(elf: ElfFile, last: Segment) -> bool:
    """Whether the highest segment is read-only data with nothing but a section header table behind it, as a former graft leaves it."""
    end = last.offset + last.file_size
    others = [segment for segment in elf.segments if segment.type == n.PT_LOAD and segment is not last]
    behind = [row for row in elf.sections if row.type not in (0, n.SHT_NOBITS) and row.offset >= end]
    return last.flags == n.PF_R and last.file_size == last.memory_size and not behind and all(row.offset < last.offset for row in others)


def _free_slot(elf: ElfFile) -> tuple[int | None, str]:
    """The program header that can be given up, and what is lost with it."""
    kinds = [segment.type for segment in elf.segments]
    if n.PT_NULL in kinds:
        return kinds.index(n.PT_NULL), ""
    properties = [(segment.offset, segment.file_size) for segment in elf.segments if segment.type == n.PT_GNU_PROPERTY]
    slots = [index for index, kind in enumerate(kinds) if kind == n.PT_NOTE]
    for index in slots:
        if (elf.segments[index].offset, elf.segments[index].file_size) in properties:
            return index, ""  # PT_GNU_PROPERTY says the same
    if slots:
        return slots[-1], "the build-id is no longer among the program headers (its section stays)"
    return None, ""


def _inserted(segments: Sequence[Segment], load: Segment, dropped: int | None) -> tuple[Segment, ...]:
    """The segments with ``load`` behind the last PT_LOAD, since a loader wants those ascending."""
    kept = [segment for index, segment in enumerate(segments) if index != dropped]
    last = max(index for index, segment in enumerate(kept) if segment.type == n.PT_LOAD)
    return (*kept[: last + 1], load, *kept[last + 1 :])


def _moved_table(elf: ElfFile, size: int, end: int, page: int, alignment: int) -> Placement:
    """A new segment that starts with the program headers, one more than before.

    Its address minus its offset is that of the first segment: older kernels compute AT_PHDR so.
    """
    first = elf.loads[0]
    delta = first.address - first.offset
    start = max(elf.source.size, end - delta)
    start += -start % page
    if start - elf.source.size > _MAX_GAP:
        raise UnsupportedError(f"no free program header, and a gap of {start - elf.source.size:#x} bytes to move them", locator=elf.locator)
    count = len(elf.segments) + 1
    table = count * SEGMENT.size + -(count * SEGMENT.size) % alignment
    load = Segment(n.PT_LOAD, n.PF_R, start, start + delta, start + delta, table + size, table + size, page)
    segments = [
        segment._replace(
            offset=start, address=start + delta, physical=start + delta, file_size=count * SEGMENT.size, memory_size=count * SEGMENT.size
        )
        if segment.type == n.PT_PHDR
        else segment
        for segment in elf.segments
    ]
    note = "the program headers had to move: do not run strip on the result, it would break the file"
    return Placement(
        "new segment, program headers moved",
        _inserted(segments, load, None),
        start + table,
        start + delta + table,
        table,
        note,
    )


def _program_headers(elf: ElfFile, placed: Placement, tail: list[Source]) -> list[Write]:
    table = b"".join(SEGMENT.pack(*segment) for segment in placed.segments)
    if not placed.table:
        return [Write.of(elf.phoff, table)]
    tail.append(Source.of(table + bytes(placed.table - len(table))))
    start = placed.start - placed.table
    return [Write.of(_E_PHOFF, _WORD.pack(start)), Write.of(_E_PHNUM, _HALF.pack(len(placed.segments)))]


def _section_headers(
    elf: ElfFile, moved: Sequence[NewPayload], placed: Placement, end: int, tail: list[Source], alignment: int, *, whole: bool
) -> list[Write]:
    """A section header over the new fatbins, so that strip keeps them; with ``whole`` the old section itself is moved there."""
    if not elf.sections:
        return []
    old = elf.section_of(moved[0].payload.offset)
    name = old.name if old is not None and moved[0].payload.section in PAYLOAD_SECTIONS else 0
    row = SectionRow(name, n.SHT_PROGBITS, n.SHF_ALLOC, placed.address, placed.start, end - placed.start, 0, 0, alignment, 0)
    if whole and old is not None:
        index = elf.sections.index(old)
        return [Write.of(elf.shoff + index * SECTION.size, SECTION.pack(*row))]
    if len(elf.sections) >= _MAX_SECTIONS:
        raise UnsupportedError("no room for another section header", locator=elf.locator)
    tail.append(padding(end, _ALIGNMENT))
    table_at = end + -end % _ALIGNMENT
    tail.append(Source.of(b"".join(SECTION.pack(*each) for each in (*elf.sections, row))))
    return [Write.of(_E_SHOFF, _WORD.pack(table_at)), Write.of(_E_SHNUM, _HALF.pack(len(elf.sections) + 1))]
