"""A host ELF64 file as its writer needs it: raw header tables, and what points to a fatbin (reference: graft, section B)."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from fatpatch.edits.code_references import code_references
from fatpatch.edits.overlay import Write
from fatpatch.elf64 import HEADER, SECTION, SEGMENT, SYMBOL
from fatpatch.errors import EditError, LimitError, UnsupportedError
from fatpatch.formats import numbers as n
from fatpatch.payloads.wrapper import Pointer
from fatpatch.source import CHUNK, Source

_DYNAMIC = struct.Struct("<qQ")
_RELA = struct.Struct("<QQq")
_WORD = struct.Struct("<Q")
_RELATIVE = {n.EM_X86_64: n.R_X86_64_RELATIVE, n.EM_AARCH64: n.R_AARCH64_RELATIVE}
_MAX_TABLE = 256 << 20
_MAX_SEGMENTS = 512
_MAX_PLACES = 2_000_000
_MAX_ALIGNMENT = 1 << 30
_ADDRESSES = 1 << 47


class Segment(NamedTuple):
    """A program header; field names follow formats/elf.py."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    alignment: int


class SectionRow(NamedTuple):
    """A section header; field names follow formats/elf.py."""

    name: int
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class ElfFile:
    """The tables of one ELF file, ``loads`` by address; UnsupportedError when nothing can be moved in such a file."""

    def __init__(self, source: Source, locator: str) -> None:
        self.source, self.locator = source, locator
        fields = HEADER.unpack(source.read(0, HEADER.size))
        _, self.type, self.machine, _, _, self.phoff, self.shoff, _, _, phentsize, phnum, shentsize, shnum, _ = fields
        if phnum and phentsize != SEGMENT.size:
            raise UnsupportedError(f"program headers of {phentsize} bytes, expected {SEGMENT.size}: not edited", locator=locator)
        if phnum > _MAX_SEGMENTS:
            raise UnsupportedError(f"{phnum} program headers: not edited", locator=locator)
        if self.type not in (n.ET_EXEC, n.ET_DYN) or self.machine not in _RELATIVE or not phnum:
            hint = "link it first, and graft into what the linker wrote"
            raise UnsupportedError("only x86-64 and aarch64 executables and shared objects can be edited", locator=locator, hint=hint)
        self.segments = [Segment._make(row) for row in SEGMENT.iter_unpack(source.read(self.phoff, phnum * SEGMENT.size))]
        table = source.read(self.shoff, shnum * SECTION.size) if self.shoff and shentsize == SECTION.size else b""
        self.sections = [SectionRow._make(row) for row in SECTION.iter_unpack(table)]
        self.loads = sorted((segment for segment in self.segments if segment.type == n.PT_LOAD), key=lambda segment: segment.address)
        self._starts = [segment.address for segment in self.loads]
        if not self.loads:
            raise UnsupportedError("has no loadable segment", locator=locator)
        if any(segment.alignment & segment.alignment - 1 or segment.alignment > _MAX_ALIGNMENT for segment in self.loads):
            raise UnsupportedError("a segment's alignment is no power of two, or absurd", locator=locator)
        if any(
            segment.address + segment.memory_size > _ADDRESSES or segment.offset + segment.file_size > _ADDRESSES for segment in self.loads
        ):
            raise UnsupportedError("a segment lies where no program can be", locator=locator)
        if self.shoff and not shnum:
            raise UnsupportedError("more than 65,279 sections: not edited", locator=locator)

    def address_of(self, offset: int) -> int:
        """Where the byte at a file offset is loaded."""
        for segment in self.loads:
            if segment.offset <= offset < segment.offset + segment.file_size:
                return segment.address + offset - segment.offset
        raise EditError("lies in no loadable segment", locator=self.locator, offset=offset)

    def offset_of(self, address: int) -> int:
        """Where the byte at an address is in the file."""
        segment = self.loads[max(bisect.bisect_right(self._starts, address) - 1, 0)]
        if segment.address <= address < segment.address + segment.file_size:
            return segment.offset + address - segment.address
        raise EditError(f"the address {address:#x} lies in no loadable segment", locator=self.locator)

    def section_of(self, offset: int) -> SectionRow | None:
        """The allocated section that holds a file offset."""
        return next(
            (
                row
                for row in self.sections
                if row.type not in (0, n.SHT_NOBITS) and row.flags & n.SHF_ALLOC and row.offset <= offset < row.offset + row.size
            ),
            None,
        )

    def _dynamic(self) -> dict[int, int]:
        table = next((segment for segment in self.segments if segment.type == n.PT_DYNAMIC), None)
        if table is None:
            return {}
        data = self.source.peek(table.offset, min(table.file_size, 1 << 20))
        return dict(_DYNAMIC.iter_unpack(data[: len(data) // _DYNAMIC.size * _DYNAMIC.size]))

    def relative_relocations(self) -> tuple[list[tuple[int, int, int]], set[int]]:
        """(place, addend, file offset of the addend) of every RELATIVE relocation, and the places that RELR relocates.

        Found through PT_DYNAMIC, as a loader finds them, not by section names.
        """
        dynamic = self._dynamic()
        rows: list[tuple[int, int, int]] = []
        if dynamic.get(n.DT_RELA) and dynamic.get(n.DT_RELASZ):
            start = self.offset_of(dynamic[n.DT_RELA])
            data = self.source.read(start, min(dynamic[n.DT_RELASZ], _MAX_TABLE))
            kind = _RELATIVE[self.machine]
            rows = [
                (place, addend, start + index * _RELA.size + 16)
                for index, (place, info, addend) in enumerate(_RELA.iter_unpack(data[: len(data) // _RELA.size * _RELA.size]))
                if info == kind
            ]
        packed: set[int] = set()
        if dynamic.get(n.DT_RELR) and dynamic.get(n.DT_RELRSZ):
            data = self.source.read(self.offset_of(dynamic[n.DT_RELR]), min(dynamic[n.DT_RELRSZ], _MAX_TABLE))
            places = _relr_places(word for (word,) in _WORD.iter_unpack(data[: len(data) // 8 * 8]))
            packed = set(islice(places, _MAX_PLACES + 1))
            if len(packed) > _MAX_PLACES:
                raise LimitError(f"more than {_MAX_PLACES} packed relocations", locator=self.locator)
        return rows, packed

    def named_relocations(self) -> Iterator[tuple[int, int]]:
        """(place, address) of every relocation by a symbol that the file itself defines."""
        dynamic = self._dynamic()
        if not (dynamic.get(n.DT_RELA) and dynamic.get(n.DT_RELASZ) and dynamic.get(n.DT_SYMTAB)):
            return
        data = self.source.read(self.offset_of(dynamic[n.DT_RELA]), min(dynamic[n.DT_RELASZ], _MAX_TABLE))
        symbols = self.offset_of(dynamic[n.DT_SYMTAB])
        for place, info, addend in _RELA.iter_unpack(data[: len(data) // _RELA.size * _RELA.size]):
            if info >> 32:
                symbol = self.source.peek(symbols + (info >> 32) * SYMBOL.size, SYMBOL.size)
                if len(symbol) == SYMBOL.size and (value := SYMBOL.unpack(symbol)[4]):
                    yield place, value + addend

    def code(self) -> list[tuple[int, int, int]]:
        """File offset, size and address of all code: its sections, or without any the segments, which hold other things, too."""
        sections = [row for row in self.sections if row.flags & n.SHF_EXECINSTR and row.type == n.SHT_PROGBITS]
        if sections:
            return [(row.offset, row.size, row.address) for row in sections]
        return [(segment.offset, segment.file_size, segment.address) for segment in self.loads if segment.flags & n.PF_X]

    def plain_pointers(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """(place, value) of aligned words in writable segments that hold an address in [low, high).

        A program at a fixed address has no relocations that would say where its pointers are.
        """
        for segment in self.loads:
            if not segment.flags & n.PF_W:
                continue
            skip = -segment.address % _WORD.size
            size = min(segment.file_size, self.source.size - segment.offset)
            for start in range(skip, size, CHUNK):
                data = self.source.peek(segment.offset + start, min(CHUNK, size - start))
                for index, (value,) in enumerate(_WORD.iter_unpack(data[: len(data) // 8 * 8])):
                    if low <= value < high:
                        yield segment.address + start + index * 8, value


def _relr_places(words: Iterable[int]) -> Iterator[int]:
    """Unpack DT_RELR: an even word is an address, an odd one a bitmap of the 63 words behind the last (gABI proposal)."""
    base = 0
    for word in words:
        if not word & 1:
            yield word
            base = word + 8
            continue
        for bit in range(63):
            if word >> (bit + 1) & 1:
                yield base + bit * 8
        base += 63 * 8


def retarget(
    elf: ElfFile, pointers: Iterable[Pointer], moves: dict[int, tuple[int, int]], sizes: dict[int, int], *, shrunk: Iterable[int] = ()
) -> list[Write]:
    """The writes that make every wrapper of a moved fatbin point to its new address.

    ``moves``: old file offset to (old address, new address); ``sizes``: bytes of the old fatbin; ``shrunk``: offsets of those that stay
    where they are and become shorter. EditError when something else than a wrapper refers to one, or into one, or when a wrapper's
    pointer is not relocated as one must be in this kind of file.
    """
    relocated, packed = elf.relative_relocations()
    by_place = {place: (addend, at) for place, addend, at in relocated}
    writes, places, reached = [], set(), set()
    for pointer in pointers:
        if pointer.target not in moves:
            continue
        old, new = moves[pointer.target]
        at = pointer.wrapper.offset + 8
        place = elf.address_of(at)
        places.add(place)
        reached.add(pointer.target)
        (value,) = _WORD.unpack(elf.source.read(at, 8))
        addend, addend_at = by_place.get(place, (None, 0))
        if elf.type == n.ET_DYN and addend is None and place not in packed:
            raise EditError("the wrapper's pointer has no RELATIVE relocation", locator=elf.locator, offset=at, field="fatbin pointer")
        if addend is not None:
            if addend != old:
                message = f"the wrapper's relocation leads to {addend:#x}, expected {old:#x}"
                raise EditError(message, locator=elf.locator, offset=addend_at, field="r_addend")
            writes.append(Write.of(addend_at, _WORD.pack(new)))
        if value == old:
            writes.append(Write.of(at, _WORD.pack(new)))
        elif value or addend is None:  # lld leaves zero and keeps the value in the relocation alone
            raise EditError(f"the wrapper holds {value:#x}, expected {old:#x}", locator=elf.locator, offset=at, field="fatbin pointer")
    for offset in moves.keys() - reached:
        hint = "give an image that fits in place (a smaller one, or --replace), or another module"
        raise EditError("no wrapper points to it, so nothing would find it elsewhere", locator=elf.locator, offset=offset, hint=hint)
    ranges = [(old, old + sizes[offset]) for offset, (old, _) in moves.items()]
    inner = [(elf.address_of(offset) + 1, elf.address_of(offset) + sizes[offset]) for offset in shrunk]
    if ranges or inner:
        _refuse_other_references(elf, relocated, packed - places, places, sorted([*ranges, *inner]))
    return writes


def _refuse_other_references(
    elf: ElfFile, relocated: list[tuple[int, int, int]], packed: set[int], places: set[int], ranges: list[tuple[int, int]]
) -> None:
    low, high = ranges[0][0], max(end for _, end in ranges)
    starts = [start for start, _ in ranges]

    def inside(value: int) -> bool:
        index = bisect.bisect_right(starts, value) - 1
        return index >= 0 and value < ranges[index][1]

    suspects = [(place, addend) for place, addend, _ in relocated if low <= addend < high and place not in places]
    suspects += [(place, value) for place, value in elf.named_relocations() if low <= value < high]
    if elf.type == n.ET_EXEC:
        suspects += [(place, value) for place, value in elf.plain_pointers(low, high) if place not in places]
    for place in packed:
        (value,) = _WORD.unpack(elf.source.read(elf.offset_of(place), 8))
        if low <= value < high:
            suspects.append((place, value))
    for place, value in suspects:
        if inside(value):
            message = f"the pointer at {place:#x} also leads into the fatbin ({value:#x}), and would go on reading the old one"
            raise EditError(message, locator=elf.locator)
    for place, value in code_references(elf.source, elf.machine, elf.code(), low, high, elf.locator):
        if inside(value):
            message = f"code at {place:#x} takes the address {value:#x} in the fatbin by itself, and would go on reading the old one"
            raise EditError(message, locator=elf.locator)
