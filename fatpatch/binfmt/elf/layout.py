"""A host ELF64 file as its writer needs it: raw header tables, and what points to a fatbin (reference: graft, section B)."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable, Iterator
from itertools import count, islice

from fatpatch.base.errors import EditError, FormatError, LimitError, UnsupportedError
from fatpatch.base.source import Source
from fatpatch.binfmt.elf.elf64 import HEADER, RELA, SECTION, SEGMENT, SYMBOL, SectionRow, dynamic, header_of, section_rows, segments
from fatpatch.formats import numbers as n

_WORD, _LONG = struct.Struct("<Q"), struct.Struct("<I")
_GNU_HASH = struct.Struct("<IIII")
_RELATIVE = {n.EM_X86_64: n.R_X86_64_RELATIVE, n.EM_AARCH64: n.R_AARCH64_RELATIVE}
_THREAD_LOCAL = frozenset({16, 17, 18, 36, 1028, 1029, 1030, 1031})
"""Relocations whose addend counts from a thread's own storage: DTPMOD64, DTPOFF64, TPOFF64 and TLSDESC, of x86-64 and aarch64."""
_MAX_TABLE = 256 << 20
_PIECE = 1 << 15
_MAX_SEGMENTS = 512
_MAX_PLACES = 2_000_000
_MAX_ALIGNMENT = 1 << 30
_ADDRESSES = 1 << 47


class ElfFile:
    """The tables of one ELF file, ``loads`` by address; UnsupportedError when nothing can be moved in such a file."""

    def __init__(self, source: Source, locator: str) -> None:
        self.source, self.locator = source, locator
        header = header_of(source.read(0, HEADER.size))
        assert header is not None
        self.type, self.machine, self.phoff, self.shoff = header.type, header.machine, header.phoff, header.shoff
        phentsize, phnum, shentsize, shnum = header.phentsize, header.phnum, header.shentsize, header.shnum
        if phnum and phentsize != SEGMENT.size:
            raise UnsupportedError(f"program headers of {phentsize} bytes, expected {SEGMENT.size}: not edited", locator=locator)
        if phnum > _MAX_SEGMENTS:
            raise UnsupportedError(f"{phnum} program headers: not edited", locator=locator)
        if self.type not in (n.ET_EXEC, n.ET_DYN) or self.machine not in _RELATIVE or not phnum:
            hint = "link it first, and graft into what the linker wrote"
            raise UnsupportedError("only x86-64 and aarch64 executables and shared objects can be edited", locator=locator, hint=hint)
        self.segments = segments(source.read(self.phoff, phnum * SEGMENT.size))
        table = source.read(self.shoff, shnum * SECTION.size) if self.shoff and shentsize == SECTION.size else b""
        self.sections = section_rows(table)
        self.loads = sorted((segment for segment in self.segments if segment.type == n.PT_LOAD), key=lambda segment: segment.address)
        self._starts = [segment.address for segment in self.loads]
        if not self.loads:
            raise UnsupportedError("has no loadable segment", locator=locator)
        if any(segment.alignment & segment.alignment - 1 or segment.alignment > _MAX_ALIGNMENT for segment in self.loads):
            raise UnsupportedError("a segment's alignment is not a power of two, or absurd", locator=locator)
        if any(
            segment.address + segment.memory_size > _ADDRESSES or segment.offset + segment.file_size > _ADDRESSES for segment in self.loads
        ):
            raise UnsupportedError("a segment lies where no program can be", locator=locator)
        if self.shoff and not shnum:
            raise UnsupportedError("more than 65,279 sections: not edited", locator=locator)

    @property
    def is_program(self) -> bool:
        """Whether a kernel starts it: at a fixed address, with an interpreter, or as a position-independent executable."""
        kinds = {segment.type for segment in self.segments}
        return self.type == n.ET_EXEC or n.PT_INTERP in kinds or bool(self._dynamic().get(n.DT_FLAGS_1, 0) & n.DF_1_PIE)

    def refuse_cut_off(self) -> None:
        """FormatError when a segment ends outside the file."""
        cut_off = next((each for each in self.loads if each.offset + each.file_size > self.source.size), None)
        if cut_off is not None:
            message = "a segment ends outside the file: it is cut off or damaged"
            raise FormatError(message, locator=self.locator, offset=cut_off.offset)

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
        return dynamic(data)

    def relocations(self) -> Iterator[tuple[int, int]]:
        """(place, address that it will hold) of every relocation of a pointer to something in this file, RELR apart.

        Found through PT_dynamic, as a loader finds them, not by section names.
        """
        dynamic = self._dynamic()
        symbols = self._place(dynamic.get(n.DT_SYMTAB, 0))
        for table, size in ((n.DT_RELA, n.DT_RELASZ), (n.DT_JMPREL, n.DT_PLTRELSZ)):
            for _, piece in self._pieces(dynamic.get(table, 0), dynamic.get(size, 0), RELA.size):
                for place, info, addend in RELA.iter_unpack(piece):
                    if info & 0xFFFFFFFF in _THREAD_LOCAL:
                        continue
                    if not info >> 32:
                        yield place, addend
                    elif symbols is not None:
                        symbol = self.source.peek(symbols + (info >> 32) * SYMBOL.size, SYMBOL.size)
                        if len(symbol) == SYMBOL.size and (value := SYMBOL.unpack(symbol)[4]):
                            yield place, value + addend

    def relative_relocations(self) -> Iterator[tuple[int, int, int]]:
        """(place, addend, file offset of the addend) of every RELATIVE relocation: a file may have a million, which nobody holds."""
        dynamic = self._dynamic()
        if dynamic.get(n.DT_RELA) and dynamic.get(n.DT_RELASZ):
            kind = _RELATIVE[self.machine]
            self.offset_of(dynamic[n.DT_RELA])  # an error where that is nowhere
            for start, piece in self._pieces(dynamic[n.DT_RELA], dynamic[n.DT_RELASZ], RELA.size):
                for at, (place, info, addend) in zip(count(start + 16, RELA.size), RELA.iter_unpack(piece), strict=False):
                    if info == kind:
                        yield place, addend, at

    def packed_relocations(self) -> set[int]:
        """The places that RELR relocates."""
        dynamic = self._dynamic()
        packed: set[int] = set()
        if dynamic.get(n.DT_RELR) and dynamic.get(n.DT_RELRSZ):
            data = self._rows(dynamic[n.DT_RELR], dynamic[n.DT_RELRSZ], _WORD.size)
            places = _relr_places(word for (word,) in _WORD.iter_unpack(data))
            packed = set(islice(places, _MAX_PLACES + 1))
            if len(packed) > _MAX_PLACES:
                raise LimitError(f"more than {_MAX_PLACES} packed relocations", locator=self.locator)
        return packed

    def dynamic_value(self, tag: int) -> int:
        """The value of an entry of the dynamic section, 0 when there is none."""
        return self._dynamic().get(tag, 0)

    def dynamic_symbols(self) -> tuple[int, int, int]:
        """File offsets of the dynamic symbols and their names, and how many there are; zeros when there are none."""
        dynamic = self._dynamic()
        table, strings = (self._place(dynamic.get(tag, 0)) for tag in (n.DT_SYMTAB, n.DT_STRTAB))
        if table is None or strings is None:
            return 0, 0, 0
        header = next((row for row in self.sections if row.type == n.SHT_DYNSYM and row.offset == table), None)
        if header is not None:
            return table, strings, header.size // SYMBOL.size
        if (hashes := self._place(dynamic.get(n.DT_HASH, 0))) is not None:
            return table, strings, int.from_bytes(self.source.peek(hashes + 4, 4), "little")
        if (hashes := self._place(dynamic.get(n.DT_GNU_HASH, 0))) is not None:
            return table, strings, self._counted(hashes)
        return table, strings, 0

    def _counted(self, at: int) -> int:
        """The number of symbols that a GNU hash table knows: one more than the last one of its last chain."""
        count: int
        first: int
        words: int
        count, first, words, _ = _GNU_HASH.unpack(self.source.read(at, _GNU_HASH.size))
        buckets = at + _GNU_HASH.size + 8 * words
        data = self.source.peek(buckets, min(4 * count, _MAX_TABLE))
        last = max((value for (value,) in _LONG.iter_unpack(data[: len(data) & ~3])), default=0)
        if last < first:
            return first
        chain = buckets + 4 * count + 4 * (last - first)
        while (word := self.source.peek(chain, 4)) and not word[0] & 1:
            last, chain = last + 1, chain + 4
        return last + 1

    def _rows(self, address: int, size: int, row: int) -> bytes:
        """A table of the dynamic section, as many whole rows as there are."""
        at = self._place(address) if size else None
        if at is None:
            return b""
        data = self.source.read(at, min(size, _MAX_TABLE))
        return data[: len(data) // row * row]

    def _pieces(self, address: int, size: int, row: int) -> Iterator[tuple[int, bytes]]:
        """As ``_rows``, some ten thousand rows at a time, each run with its file offset."""
        at = self._place(address) if size else None
        if at is None:
            return
        size = min(size, _MAX_TABLE)
        self.source.slice(at, size)  # all of it must be there
        for start in range(0, size // row * row, _PIECE * row):
            yield at + start, self.source.read(at + start, min(_PIECE * row, size // row * row - start))

    def _place(self, address: int) -> int | None:
        try:
            return self.offset_of(address) if address else None
        except EditError:
            return None


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
