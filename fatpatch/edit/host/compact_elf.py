"""An ELF file that shrinks: payloads packed together, and the pages behind them taken out of the file, not out of memory's map.

A segment with a payload section in its middle becomes two, at the addresses that it had; that takes a program header.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from fatpatch.base.errors import EditError, UnsupportedError
from fatpatch.base.overlay import Write
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import SECTION, SEGMENT, SectionRow, Segment
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.edit.host.compaction import (
    LEAVE,
    Cut,
    PlacedModule,
    compacted,
    inside_cut,
    laid_out,
    others_in_place,
    refuse_unnamed,
    refuse_zip_behind,
    section_parts,
    shift,
    tactics_of,
)
from fatpatch.edit.host.elf_symbols import Symbol, followed
from fatpatch.edit.host.elf_wrappers import retarget
from fatpatch.edit.host.host import HostEdit
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.formats import numbers as n
from fatpatch.gpucode.locate import PAYLOAD_SECTIONS
from fatpatch.model.tree import Node

_PAGES = {n.EM_X86_64: 0x1000, n.EM_AARCH64: 0x10000}
_E_PHOFF, _E_SHOFF = 32, 40
_WORD = struct.Struct("<Q")
_NOTE = struct.Struct("<III")
_MAX_NOTES = 1 << 16
_GNU_NOTES = (1, 3, 5)  # ABI tag, build-id, properties
_PINNED = (
    "freed bytes before the program headers stay as zeros: an earlier edit moved the headers, and Linux before 5.18 finds those of a "
    "program by their place in the file"
)
_NO_SECTIONS = "has no section headers, so nothing says what lies where"


class Placed(NamedTuple):
    """A payload section by its number in the table: its start, as those of its payloads counted from the region's, and its size."""

    number: int
    start: int
    size: int
    placed_modules: tuple[PlacedModule, ...]


class ElfRegion(NamedTuple):
    """Payload sections side by side, from the file offset ``start`` on; ``resume``: where the file goes on behind them."""

    start: int
    resume: int
    sections: tuple[Placed, ...]

    @property
    def placed_modules(self) -> list[PlacedModule]:
        """All its payloads."""
        return [module for placed in self.sections for module in placed.placed_modules]

    @property
    def used(self) -> int:
        """Bytes that its payloads take now."""
        return max((module.end for module in self.placed_modules), default=0)

    def removable(self, page: int) -> int:
        """Whole pages that it can do without."""
        return max(self.resume - self.start - self.used, 0) // page * page


def compact_elf(host: Node, renewed: Sequence[NewPayload]) -> tuple[HostEdit | None, list[str]]:
    """The file without the room that its payloads no longer need; None, and why, when no page of it can go."""
    elf = ElfFile(host.content, host.locator)
    if not elf.sections:
        raise UnsupportedError(_NO_SECTIONS, locator=host.locator, hint=LEAVE)
    refuse_zip_behind(host)
    page = _PAGES[elf.machine]
    by_offset = {new.payload.offset: new for new in renewed}
    regions = [region for region in _regions(host, elf, by_offset) if region.removable(page)]
    pinned = [region for region in regions if elf.is_program and region.start < elf.phoff]
    segments, regions, notes = _split(elf, [region for region in regions if region not in pinned], page)
    if pinned:
        notes.append(_PINNED)
    if not regions:
        return None, notes or ["--compact has no effect here: less than a page would go"]
    cuts = [Cut(each.start, tuple(section_parts(each.placed_modules)), each.resume, each.removable(page)) for each in regions]
    inner = {module.new.payload.offset: (region, module) for region in regions for module in region.placed_modules}
    writes = others_in_place(host, renewed, inner)
    table = elf.shoff, elf.shoff + len(elf.sections) * SECTION.size
    if inside_cut(cuts, *table):
        raise EditError("its section headers lie among its payloads", locator=host.locator, offset=elf.shoff, hint=LEAVE)
    if inside_cut(cuts, elf.phoff, elf.phoff + len(elf.segments) * SEGMENT.size):
        raise EditError("its program headers lie among its payloads", locator=host.locator, offset=elf.phoff, hint=LEAVE)
    writes += _pointers(host, elf, regions, renewed)
    writes += _symbols(elf, regions)
    headers = _aligned([_shifted(elf, each, cuts, page) for each in segments], elf.segments)
    writes.append(Write.of(elf.phoff, b"".join(SEGMENT.pack(*each) for each in headers)))
    writes.append(Write.of(_E_PHOFF, _WORD.pack(shift(cuts, elf.phoff))))
    writes.append(Write.of(elf.shoff, b"".join(SECTION.pack(*row) for row in _rows(elf, regions, cuts))))
    writes.append(Write.of(_E_SHOFF, _WORD.pack(shift(cuts, elf.shoff))))
    moves = {}
    for payload in host.payloads:
        if payload.offset in inner:
            region, module = inner[payload.offset]
            moves[payload.offset] = shift(cuts, region.start) + module.start
        else:
            moves[payload.offset] = shift(cuts, payload.offset)
    overlay = compacted(host.content, writes, cuts, host.content.size)
    return HostEdit(overlay, tactics_of(renewed, inner), moves, tuple(notes), compacted=True), notes


def _pointers(host: Node, elf: ElfFile, regions: Sequence[ElfRegion], renewed: Sequence[NewPayload]) -> list[Write]:
    """The wrappers of payloads that get another address."""
    moves = {}
    for region in regions:
        for module in region.placed_modules:
            old, new = elf.address_of(module.new.payload.offset), elf.address_of(region.start) + module.start
            if old != new:
                moves[module.new.payload.offset] = (old, new)
    shrunk = [
        module.new.payload.offset for region in regions for module in region.placed_modules if module.new.size < module.new.payload.size
    ]
    inner = {module.new.payload.offset for region in regions for module in region.placed_modules}
    shrunk += [new.payload.offset for new in renewed if new.payload.offset not in inner and new.size < new.payload.size]
    return retarget(host, elf, moves, shrunk=[offset for offset in shrunk if offset not in moves])


def _regions(host: Node, elf: ElfFile, renewed: Mapping[int, NewPayload]) -> Iterator[ElfRegion]:
    """Runs of payload sections that nothing else lies between; only those in which something changes."""
    allocated = sorted(
        (row.address, index) for index, row in enumerate(elf.sections) if row.flags & n.SHF_ALLOC and row.size and row.type != n.SHT_NOBITS
    )
    names = {section.offset: section.name for section in host.layout.sections if section.name in PAYLOAD_SECTIONS}
    run: list[int] = []
    for _, index in (*allocated, (0, -1)):
        row = elf.sections[index] if index >= 0 else None
        mine = row is not None and names.get(row.offset) is not None
        joined = mine and row is not None and (not run or _segment_of(elf, elf.sections[run[0]]) == _segment_of(elf, row))
        if run and not joined:
            region = _region(host, elf, run, renewed)
            if any(region.start <= offset < region.resume for offset in renewed):
                yield region
            run = []
        if mine:
            run.append(index)


def _region(host: Node, elf: ElfFile, run: Sequence[int], renewed: Mapping[int, NewPayload]) -> ElfRegion:
    first, last = elf.sections[run[0]], elf.sections[run[-1]]
    segment, end = _segment_of(elf, first), last.offset + last.size
    sections, at = [], 0
    for index in run:
        row = elf.sections[index]
        alignment = max(row.alignment, 8)
        placed_modules, size = laid_out(host, renewed, row.offset, row.size, alignment)
        start = at + -(first.address + at) % alignment
        sections.append(
            Placed(index, start, size, tuple(each._replace(start=start + each.start, end=start + each.end) for each in placed_modules))
        )
        at = start + size
    segment_end = segment.offset + segment.file_size
    behind = (row.offset for row in elf.sections if row.flags & n.SHF_ALLOC and row.type != n.SHT_NOBITS and row.size)
    resume = min((offset for offset in behind if end <= offset < segment_end), default=segment_end)
    refuse_unnamed(host, end, resume)
    return ElfRegion(first.offset, resume, tuple(sections))


def _segment_of(elf: ElfFile, row: SectionRow) -> Segment:
    for segment in elf.loads:
        if segment.offset <= row.offset and row.offset + row.size <= segment.offset + segment.file_size:
            return segment
    raise EditError("a section with payloads lies in no loadable segment", locator=elf.locator, offset=row.offset, hint=LEAVE)


def _split(elf: ElfFile, regions: Sequence[ElfRegion], page: int) -> tuple[list[Segment], list[ElfRegion], list[str]]:
    """The program headers (at old file offsets) with a gap for each region, the largest first; those regions; what to say."""
    segments, done, notes = list(elf.segments), list[ElfRegion](), list[str]()
    for region in sorted(regions, key=lambda each: -each.removable(page)):
        freed = segments
        if region.resume < _end(segments[_holder(segments, region)]):
            found, note = _without_one(elf, segments)
            if found is None:
                notes.append(f"{region.removable(page):#x} freed bytes stay as zeros: no program header can be spared for one more gap")
                continue
            freed, notes = found, [*notes, note] if note else notes
        index = _holder(freed, region)
        whole = freed[index]
        size = region.start + region.used - whole.offset
        if region.resume == _end(whole) and whole.memory_size != whole.file_size:
            notes.append(f"{region.removable(page):#x} freed bytes stay as zeros: blank memory follows them")
            continue
        pieces = [whole._replace(file_size=size, memory_size=size)]
        if region.resume < _end(whole):
            gone = region.resume - whole.offset
            pieces.append(
                whole._replace(
                    offset=region.resume,
                    address=whole.address + gone,
                    physical=whole.physical + gone,
                    file_size=whole.file_size - gone,
                    memory_size=whole.memory_size - gone,
                )
            )
        segments = [*freed[:index], *(_as_its_sections(elf, piece) for piece in pieces), *freed[index + 1 :]]
        done.append(region)
    return segments, sorted(done, key=lambda each: each.start), notes


def _as_its_sections(elf: ElfFile, piece: Segment) -> Segment:
    """A piece of a segment, not executable when only the other piece holds code."""
    held = [row for row in elf.sections if row.flags & n.SHF_ALLOC and piece.address <= row.address < piece.address + piece.memory_size]
    return piece if not held or any(row.flags & n.SHF_EXECINSTR for row in held) else piece._replace(flags=piece.flags & ~n.PF_X)


def _holder(segments: Sequence[Segment], region: ElfRegion) -> int:
    return next(index for index, each in enumerate(segments) if each.type == n.PT_LOAD and each.offset <= region.start < _end(each))


def _end(segment: Segment) -> int:
    return segment.offset + segment.file_size


def _only_gnu(elf: ElfFile, segment: Segment) -> bool:
    """Whether a segment holds the build-id and the like alone: a program may look for notes of its own in its program headers."""
    data = elf.source.peek(segment.offset, min(segment.file_size, _MAX_NOTES))
    at, names = 0, set()
    while at + _NOTE.size <= len(data):
        name_size, size, kind = _NOTE.unpack_from(data, at)
        names.add((data[at + _NOTE.size : at + _NOTE.size + name_size], kind))
        at += _NOTE.size + (name_size + 3 & ~3) + (size + 3 & ~3)
    return segment.file_size <= _MAX_NOTES and bool(names) and all(name == b"GNU\0" and kind in _GNU_NOTES for name, kind in names)


def _without_one(elf: ElfFile, segments: Sequence[Segment]) -> tuple[list[Segment] | None, str]:
    """The program headers with one fewer, and what is lost with it; None when none can be spared."""
    kinds = [segment.type for segment in segments]
    if n.PT_NULL in kinds:
        return _dropped(segments, kinds.index(n.PT_NULL)), ""
    properties = [(each.offset, each.file_size) for each in segments if each.type == n.PT_GNU_PROPERTY]
    notes = [index for index, kind in enumerate(kinds) if kind == n.PT_NOTE]
    for index in notes:
        if (segments[index].offset, segments[index].file_size) in properties:
            return _dropped(segments, index), ""  # PT_GNU_PROPERTY says the same
    for index in reversed(notes):
        if _only_gnu(elf, segments[index]):
            return _dropped(segments, index), "the build-id is no longer among the program headers (its section stays)"
    for index, (first, second) in enumerate(pairwise(segments)):
        if _mergeable(first, second):
            end = second.offset + second.file_size - first.offset
            merged = first._replace(flags=first.flags | second.flags, file_size=end, memory_size=end)
            words = "the segment of the headers is now one with that of the code, as older linkers have it: no program header was free"
            return [*segments[:index], merged, *segments[index + 2 :]], words
    return None, ""


def _dropped(segments: Sequence[Segment], index: int) -> list[Segment]:
    return [each for position, each in enumerate(segments) if position != index]


def _mergeable(first: Segment, second: Segment) -> bool:
    """Whether two segments are read-only data and code that one page of padding at most lies between."""
    plain = first.type == second.type == n.PT_LOAD and first.flags == n.PF_R and second.flags == n.PF_R | n.PF_X
    gap = second.offset - first.offset - first.file_size
    level = first.address - first.offset == second.address - second.offset and first.alignment == second.alignment
    return plain and level and first.file_size == first.memory_size and 0 <= gap < max(first.alignment, 1)


def _aligned(segments: Sequence[Segment], old: Sequence[Segment]) -> list[Segment]:
    """The segments with the strictest alignment that there was on one that holds it: a loader places the whole file by the strictest."""
    wanted = max(each.alignment for each in old if each.type == n.PT_LOAD)
    loads = [index for index, each in enumerate(segments) if each.type == n.PT_LOAD]
    if max(segments[index].alignment for index in loads) >= wanted:
        return list(segments)
    holding = next((index for index in loads if (segments[index].offset - segments[index].address) % wanted == 0), None)
    return [each._replace(alignment=wanted) if index == holding else each for index, each in enumerate(segments)]


def _shifted(elf: ElfFile, segment: Segment, cuts: Sequence[Cut], page: int) -> Segment:
    """A program header at its new offset. An alignment that no longer holds becomes that of a page."""
    if segment.type != n.PT_LOAD and segment.file_size and inside_cut(cuts, segment.offset, segment.offset + segment.file_size):
        message = f"a program header of type {segment.type:#x} covers payloads"
        raise EditError(message, locator=elf.locator, offset=segment.offset, hint=LEAVE)
    offset = shift(cuts, segment.offset)
    aligned = segment.type != n.PT_LOAD or segment.alignment <= 1 or (offset - segment.address) % segment.alignment == 0
    return segment._replace(offset=offset, alignment=segment.alignment if aligned else page)


def _rows(elf: ElfFile, regions: Sequence[ElfRegion], cuts: Sequence[Cut]) -> Iterator[SectionRow]:
    """The section headers, those of payloads where these are now."""
    renewed = {placed.number: (region, placed) for region in regions for placed in region.sections}
    for index, row in enumerate(elf.sections):
        if index in renewed:
            region, placed = renewed[index]
            start = elf.address_of(region.start)
            yield row._replace(address=start + placed.start, offset=shift(cuts, region.start) + placed.start, size=placed.size)
            continue
        if row.type not in (0, n.SHT_NOBITS) and row.size and inside_cut(cuts, row.offset, row.offset + row.size):
            raise EditError("a section lies over another one with payloads", locator=elf.locator, offset=row.offset, hint=LEAVE)
        yield row._replace(offset=shift(cuts, row.offset))


def _symbols(elf: ElfFile, regions: Sequence[ElfRegion]) -> Iterator[Write]:
    """The symbols that name payloads, led to where these are now."""
    sections = {placed.number: (region, placed) for region in regions for placed in region.sections}
    places = {
        elf.address_of(module.new.payload.offset): (elf.address_of(region.start) + module.start, module.new)
        for region in regions
        for placed in region.sections
        for module in placed.placed_modules
    }

    def follow(symbol: Symbol) -> Symbol:
        region, placed = sections[symbol.section]
        address, new = places.get(symbol.value, (elf.address_of(region.start) + placed.start, None))
        size = new.size if new is not None and symbol.size == new.payload.size else symbol.size
        return symbol._replace(value=address, size=size)

    yield from followed(elf, "section", sections, follow)
