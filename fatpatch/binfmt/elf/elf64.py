"""The one reader of ELF64 little-endian tables: of host files, cubins, code objects and zebins.

A hot reader takes a raw row and an index such as ``OFFSET``; others take it as a ``SectionRow``. Offsets and names are those of
formats/elf.py; a test derives one from the other.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n

HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION: Final = struct.Struct("<IIQQQQIIQQ")
SEGMENT: Final = struct.Struct("<IIQQQQQQ")
SYMBOL: Final = struct.Struct("<IBBHQQ")
REL: Final = struct.Struct("<QQ")
RELA: Final = struct.Struct("<QQq")
DYNAMIC: Final = struct.Struct("<qQ")

Row = tuple[int, int, int, int, int, int, int, int, int, int]
"""One raw section header: name, type, flags, address, offset, size, link, info, alignment, entry size."""
TYPE, FLAGS, ADDRESS, OFFSET, SIZE, LINK, INFO = 1, 2, 3, 4, 5, 6, 7
_SIZE_OF = itemgetter(SIZE)
_MAX_OVERLAP = 4  # times the file: sections of real files do not overlap
_MAX_NAMES = 3  # times the string table: real tables share few tails
_MAX_HEADERS = 1 << 16
_EXTENDED = 0xFFFF


class ElfHeader(NamedTuple):
    """The 64 bytes at the start of a file; field names follow formats/elf.py."""

    ident: bytes
    type: int
    machine: int
    version: int
    entry: int
    phoff: int
    shoff: int
    flags: int
    ehsize: int
    phentsize: int
    phnum: int
    shentsize: int
    shnum: int
    shstrndx: int

    @property
    def sections_end(self) -> int:
        """Where the table of section headers ends."""
        return self.shoff + self.shnum * SECTION.size

    @property
    def segments_end(self) -> int:
        """Where the table of program headers ends; the sizes of its rows are what the header says."""
        return self.phoff + self.phnum * self.phentsize

    def sections_fit(self, size: int) -> bool:
        """Whether the section headers are of the usual size and lie in a file of ``size`` bytes."""
        return self.shentsize == SECTION.size and self.sections_end <= size


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


def header_of(data: bytes) -> ElfHeader | None:
    """The header in the first 64 bytes, whatever they start with; None when there are fewer."""
    return ElfHeader._make(HEADER.unpack_from(data)) if len(data) >= HEADER.size else None


def counted(source: Source, header: ElfHeader) -> ElfHeader:
    """The header with the real number of sections and that of their names, which stand in section 0 where they are large (gABI)."""
    if not header.shoff or header.shnum or header.shoff + SECTION.size > source.size:
        return header
    (first,) = section_rows(source.read(header.shoff, SECTION.size))
    return header._replace(shnum=min(first.size, _MAX_HEADERS), shstrndx=first.link if header.shstrndx == _EXTENDED else header.shstrndx)


def rows(layout: struct.Struct, data: bytes) -> Iterator[tuple[int, ...]]:
    """The whole rows of a table; what is left over is not one."""
    return layout.iter_unpack(data[: len(data) // layout.size * layout.size])


def segments(table: bytes) -> list[Segment]:
    """The program headers of a table, as many as it has whole."""
    return [Segment._make(row) for row in rows(SEGMENT, table)]


def section_rows(table: bytes) -> list[SectionRow]:
    """The section headers of a table, as many as it has whole."""
    return [tuple.__new__(SectionRow, row) for row in rows(SECTION, table)]  # as _make, which counts the fields: there are thousands


def dynamic(table: bytes) -> dict[int, int]:
    """The values of a dynamic section by their tags."""
    return dict(DYNAMIC.iter_unpack(table[: len(table) // DYNAMIC.size * DYNAMIC.size]))


def name_budget(table_size: int) -> int:
    """Bytes that all names of a string table may add up to: real tables share some tails, hostile ones share everything."""
    return _MAX_NAMES * table_size + (1 << 20)


def notes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, name, description) of each note of a section (gABI, note section)."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        start = at + 12 + (name_size + 3 & ~3)
        yield kind, data[at + 12 : at + 12 + name_size], data[start : start + size]
        at = start + (size + 3 & ~3)


class ElfTables:
    """The section headers and their names of an ELF file in memory; ``what`` it is called in messages.

    FormatError when a table reaches outside it, LimitError when sections or names overlap without end. ``without_bytes``: section types
    that take no bytes of the file; ``overlap``: times its size that the others may add up to.
    """

    __slots__ = ("_by_name", "_names", "data", "header", "rows", "what", "without_bytes")

    def __init__(
        self,
        data: bytes,
        header: ElfHeader,
        what: str,
        without_bytes: frozenset[int] = frozenset({n.SHT_NOBITS}),
        overlap: int = _MAX_OVERLAP,
    ) -> None:
        self.data, self.header, self.what, self.without_bytes = data, header, what, without_bytes
        if header.shnum and not header.sections_fit(len(data)):
            message = f"{header.shnum} section headers at {header.shoff:#x} do not fit in {len(data):#x} bytes"
            raise FormatError(message, offset=40, field="e_shoff")
        self.rows: list[Row] = list(SECTION.iter_unpack(data[header.shoff : header.sections_end])) if header.shnum else []
        strings = self.rows[header.shstrndx] if header.shstrndx < len(self.rows) else None
        self._names = b"" if strings is None else data[strings[OFFSET] : strings[OFFSET] + strings[SIZE]]
        self._by_name: dict[bytes, Row] | None = None
        most = overlap * len(data)
        if sum(map(_SIZE_OF, self.rows)) > most and sum(row[SIZE] for row in self.rows if row[TYPE] not in without_bytes) > most:
            raise LimitError("the sections overlap without end", offset=header.shoff, field="sh_size")

    def by_name(self) -> dict[bytes, Row]:
        """All sections by name; made when first asked for, since a cubin may have ten thousand."""
        if self._by_name is None:
            self._by_name = {}
            names, find, budget = self._names, self._names.find, name_budget(len(self._names))
            for row in self.rows:
                name = names[row[0] : find(b"\0", row[0])]
                self._by_name[name] = row
                budget -= len(name)
                if budget < 0:
                    raise LimitError("the section names overlap without end", offset=self.header.shoff, field="sh_name")
        return self._by_name

    def find(self, kind: int, name: bytes) -> Row | None:
        """The section of a type and name, without making the table of names."""
        wanted = name + b"\0"
        return next((row for row in self.rows if row[TYPE] == kind and self._names.startswith(wanted, row[0])), None)

    def content(self, row: Row | None) -> bytes:
        """The bytes of a section, none for one that is absent; FormatError when it reaches outside the file."""
        return self.data[row[OFFSET] : row[OFFSET] + row[SIZE]] if row is not None and self.has_bytes(row) else b""

    def has_bytes(self, row: Row) -> bool:
        """Whether a section has bytes, without a copy of them; FormatError when it reaches outside the file."""
        if row[TYPE] in self.without_bytes:
            return False
        offset, end = row[OFFSET], row[OFFSET] + row[SIZE]
        if end > len(self.data):
            raise FormatError(f"a section ends at {end:#x}, the {self.what} at {len(self.data):#x}", offset=offset, field="sh_size")
        return end > offset
