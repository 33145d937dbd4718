"""What must hold of an ELF file after an edit (reference: graft, invariants to check after writing)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.errors import EditError
from fatpatch.base.overlay import same_bytes
from fatpatch.binfmt.elf.elf64 import HEADER, SECTION, SEGMENT, SectionRow, Segment
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.edit.host.check_memory import Place, memory_problems
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.wrapper import HEADS, read_wrappers
from fatpatch.gpucode.locate import PAYLOAD_SECTIONS
from fatpatch.model.tree import Node, Section

_GIVEN_UP = (n.PT_LOAD, n.PT_NULL, n.PT_NOTE)
_KEPT = (n.PT_GNU_STACK, n.PT_GNU_PROPERTY, n.PT_GNU_RELRO, n.PT_TLS, n.PT_DYNAMIC)


def elf_checks(old_node: Node, new_node: Node, moves: Mapping[int, int], *, compacted: bool) -> Iterator[CheckResult]:
    """Segments, sections, and the relocations of the wrappers; of a compacted file all that is loaded."""
    old, new = ElfFile(old_node.content, old_node.locator), ElfFile(new_node.content, new_node.locator)
    yield check_of("segments ascending, apart and congruent", segment_problems(new))
    if compacted:
        yield check_of("sections and other program headers where they were in memory", _moved_problems(old, new))
        yield check_of("memory as before but for the payloads", _memory_problems(old_node, old, new, moves))
        yield check_of("bytes that are not loaded as before", _unloaded_problems(old, new))
    else:
        yield check_of("other program headers unchanged", _kept_problems(old, new))
        yield check_of("section headers inside the file", _section_problems(old, new))
    yield check_of("relocations agree with the wrappers", _relocation_problems(old, new, new_node, moves))


def segment_problems(elf: ElfFile) -> Iterator[str]:
    """What a loader would stumble over in the program headers."""
    loads = [segment for segment in elf.segments if segment.type == n.PT_LOAD]
    end = -1
    for segment in loads:
        if segment.address < end:
            yield f"the segment at {segment.address:#x} starts before {end:#x}"
        end = segment.address + segment.memory_size
        if segment.alignment > 1 and (segment.offset - segment.address) % segment.alignment:
            yield f"the segment at {segment.address:#x} is not congruent with its offset {segment.offset:#x}"
        if segment.offset + segment.file_size > elf.source.size:
            yield f"the segment at {segment.address:#x} ends outside the file"
    table_end = elf.phoff + len(elf.segments) * SEGMENT.size
    for segment in elf.segments:
        if segment.type == n.PT_PHDR:
            inside = any(load.offset <= elf.phoff and table_end <= load.offset + load.file_size for load in loads)
            if segment.offset != elf.phoff or not inside:
                yield "PT_PHDR does not lie over the program headers, inside a segment"


def _kept_problems(old: ElfFile, new: ElfFile) -> Iterator[str]:
    for kind in _KEPT:
        if [row for row in old.segments if row.type == kind] != [row for row in new.segments if row.type == kind]:
            yield f"the program headers of type {kind:#x} have changed"
    olds = [row for row in old.segments if row.type == n.PT_LOAD]
    missing = [row for row in olds if row not in new.segments and not any(_extends(row, each) for each in new.segments)]
    yield from (f"the segment at {row.address:#x} has changed" for row in missing)


def _extends(old: Segment, new: Segment) -> bool:
    return old._replace(file_size=new.file_size, memory_size=new.memory_size) == new and new.file_size > old.file_size


def _section_problems(old: ElfFile, new: ElfFile) -> Iterator[str]:
    if new.shoff and new.shoff + len(new.sections) * SECTION.size > new.source.size:
        yield f"the section headers at {new.shoff:#x} end outside the file"
    changed = [index for index, row in enumerate(old.sections) if index >= len(new.sections) or new.sections[index] != row]
    if len(changed) > 1:
        yield f"{len(changed)} section headers have changed"
    for row in new.sections:
        inside = row.type in (0, n.SHT_NOBITS) or row.offset + row.size <= new.source.size
        if not inside:
            yield f"the section at {row.offset:#x} ends outside the file"


def _relocation_problems(old: ElfFile, new: ElfFile, node: Node, moves: Mapping[int, int]) -> Iterator[str]:
    wanted = {old.address_of(before): new.address_of(after) for before, after in moves.items()}
    pointers = read_wrappers(new.source, node.layout)
    wrappers = {new.address_of(pointer.wrapper.offset + 8) for pointer in pointers if pointer.magic in HEADS}
    by_place = dict[int, int]()
    before = now = 0
    for row, row_now in zip_longest(old.relative_relocations(), new.relative_relocations()):
        before, now = before + (row is not None), now + (row_now is not None)
        if row_now is not None and row_now[0] in wrappers:
            by_place[row_now[0]] = row_now[1]
        if row is not None and row_now is not None and (row[0] != row_now[0] or row_now[1] != wanted.get(row[1], row[1])):
            yield f"the relocation at {row[0]:#x} leads to {row_now[1]:#x}"
    if before != now or old.packed_relocations() != new.packed_relocations():
        yield f"{before} relocations before, {now} now"
    for pointer in pointers:
        if pointer.magic not in HEADS:
            continue
        at = pointer.wrapper.offset + 8
        stored = int.from_bytes(new.source.read(at, 8), "little")
        addend = by_place.get(new.address_of(at), stored)
        if stored not in (0, addend):
            yield f"the wrapper at {pointer.wrapper.offset:#x} holds {stored:#x}, its relocation {addend:#x}"
        if pointer.target is None or new.source.peek(pointer.target, 4) not in HEADS[pointer.magic]:
            yield f"the wrapper at {pointer.wrapper.offset:#x} leads to no payload"


def _moved_problems(old: ElfFile, new: ElfFile) -> Iterator[str]:
    """Of a compacted file: what may not change of sections and program headers."""
    before = [_in_memory(row) for row in old.segments if row.type not in _GIVEN_UP]
    after = [_in_memory(row) for row in new.segments if row.type not in _GIVEN_UP]
    if before != after:
        yield "a program header has changed its type, address or size"
    if len(old.sections) != len(new.sections):
        yield f"{len(new.sections)} section headers, expected {len(old.sections)}"
    for row, now in zip(old.sections, new.sections, strict=False):
        if row._replace(address=0, offset=0, size=0) != now._replace(address=0, offset=0, size=0):
            yield f"the section at {row.offset:#x} has changed its kind"
        if row.type not in (0, n.SHT_NOBITS) and now.offset + now.size > new.source.size:
            yield f"the section at {now.offset:#x} ends outside the file"
        if row.flags & n.SHF_ALLOC and now.type != n.SHT_NOBITS and now.size and new.address_of(now.offset) != now.address:
            yield f"the section at {now.offset:#x} is loaded to {new.address_of(now.offset):#x}, its header says {now.address:#x}"


def _in_memory(row: Segment) -> tuple[int, int, int, int]:
    return row.type, row.address, row.file_size, row.memory_size


def _memory_problems(node: Node, old: ElfFile, new: ElfFile, moves: Mapping[int, int]) -> Iterator[str]:
    wrappers = {old.address_of(pointer.wrapper.offset + 8) for pointer in read_wrappers(old.source, node.layout)}
    addends = {old.address_of(at) for place, _, at in old.relative_relocations() if place in wrappers}
    start = old.address_of(0)
    apart = [(word, word + 8) for word in (*wrappers, *addends)]
    apart.append((start, start + max(old.phoff + len(old.segments) * SEGMENT.size, HEADER.size)))
    tables = [(old.shoff, len(old.sections) * SECTION.size)]  # patchelf puts such tables into segments
    tables += [(row.offset, row.size) for row in old.sections if row.type == n.SHT_SYMTAB]
    for offset, size in tables:
        with suppress(EditError):
            apart.append((old.address_of(offset), old.address_of(offset) + size))
    spans = [(segment.address, segment.address + segment.file_size) for segment in old.loads]
    payloads = {_room_of(old, offset) for offset in moves}
    payloads |= {_room_of(old, row.offset) for row in _emptied(node.layout.sections, old)}
    yield from memory_problems(spans, (old.source, _place(old)), (new.source, _place(new)), apart, payloads)


def _emptied(sections: Iterable[Section], elf: ElfFile) -> Iterator[SectionRow]:
    """Payload sections that hold nothing any more: an earlier edit has moved their payloads away."""
    names = {section.offset for section in sections if section.name in PAYLOAD_SECTIONS}
    for row in elf.sections:
        if row.offset in names and row.type != n.SHT_NOBITS and not any(any(chunk) for chunk in elf.source.chunks(row.offset, row.size)):
            yield row


def _room_of(elf: ElfFile, offset: int) -> tuple[int, int]:
    """The addresses of the section that holds a payload, with the padding up to what comes behind it."""
    section = elf.section_of(offset)
    if section is None:
        return 0, 0
    end = section.address + section.size
    behind = (row.address for row in elf.sections if row.flags & n.SHF_ALLOC and row.size and row.address >= end)
    return section.address, min(behind, default=end)


def _place(elf: ElfFile) -> Place:
    def place(address: int) -> int | None:
        try:
            return elf.offset_of(address)
        except EditError:
            return None

    return place


def _unloaded_problems(old: ElfFile, new: ElfFile) -> Iterator[str]:
    """Debug information, names, symbols: the bytes of all sections that are not loaded, symbol tables by size alone."""
    for row, now in zip(old.sections, new.sections, strict=False):
        if row.flags & n.SHF_ALLOC or row.type in (0, n.SHT_NOBITS):
            continue
        changed = row.size != now.size
        if not changed and row.type != n.SHT_SYMTAB:  # symbols of payloads lead elsewhere now
            changed = not same_bytes(old.source.slice(row.offset, row.size), new.source.slice(now.offset, now.size))
        if changed:
            yield f"the section at {row.offset:#x} has other bytes"
