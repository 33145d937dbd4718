"""The one reader of PE and COFF headers: for listing, editing, signatures and imports (reference: PE/COFF specification).

Names and offsets are those of formats/pe.py; a test derives one from the other. A number that lies outside the file is read as 0.
"""

from __future__ import annotations

import struct
from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source

FILE_HEADER: Final = struct.Struct("<HHIIIHH")
SECTION: Final = struct.Struct("<8sIIIIIIHHI")
DLL, RELOCATIONS_STRIPPED = 0x2000, 0x1
UNINITIALIZED, EXECUTABLE, WRITABLE = 0x80, 0x20000000, 0x80000000
EXPORTS, IMPORTS, EXCEPTIONS, SECURITY, RELOCATIONS, DEBUG = 0, 1, 3, 4, 5, 6
"""Indexes of data directories."""
INITIALIZED_DATA, SECTION_ALIGNMENT, FILE_ALIGNMENT, IMAGE_SIZE, HEADERS_SIZE, CHECKSUM = 8, 32, 36, 56, 60, 64
"""Offsets in the optional header that PE32 and PE32+ share."""
_PE32, _PE32_PLUS = 0x10B, 0x20B
_DIRECTORIES: Final = {_PE32: 96, _PE32_PLUS: 112}
_BASE: Final = {_PE32: (28, 4), _PE32_PLUS: (24, 8)}
_SIGNATURE_AT = 0x3C


class PeSection(NamedTuple):
    """A section header; field names follow formats/pe.py."""

    name: bytes
    virtual_size: int
    address: int
    raw_size: int
    offset: int
    relocations: int
    line_numbers: int
    relocation_count: int
    line_number_count: int
    flags: int

    @property
    def end(self) -> int:
        """The first address behind it in memory, where Windows wants the next section, rounded up."""
        return self.address + (self.virtual_size or self.raw_size)


def signature_at(source: Source) -> int | None:
    """Where the PE signature is that an MZ header leads to; None without one, as in a COFF object."""
    at = int.from_bytes(source.peek(_SIGNATURE_AT, 4), "little") if source.peek(0, 2) == b"MZ" else 0
    return at if at and source.peek(at, 4) == b"PE\0\0" and at + 4 + FILE_HEADER.size <= source.size else None


class PeTables:
    """The headers of a PE file or COFF object.

    ``linked``: it has a PE signature; ``count``: sections announced, ``sections``: those that there is room for.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        signature = signature_at(source)
        self.linked = signature is not None
        self.file_header = 0 if signature is None else signature + 4
        header = FILE_HEADER.unpack(source.read(self.file_header, FILE_HEADER.size))
        self.machine, self.count, _, self.symbols, self.symbol_count, optional_size, self.flags = header
        self.optional = self.file_header + FILE_HEADER.size
        self.table = self.optional + optional_size
        self.form = self.half(0) if optional_size else 0
        rows = source.peek(self.table, self.count * SECTION.size)
        self.sections = [PeSection._make(row) for row in SECTION.iter_unpack(rows[: len(rows) // SECTION.size * SECTION.size])]

    @property
    def wide(self) -> bool:
        """Whether it is PE32+, of 64-bit programs."""
        return self.form == _PE32_PLUS

    @property
    def base(self) -> int:
        """The address that it is linked for; 0 for an object."""
        return self._number(*_BASE[self.form]) if self.form in _BASE else 0

    def half(self, at: int) -> int:
        """A 16-bit field of the optional header."""
        return self._number(at, 2)

    def long(self, at: int) -> int:
        """A 32-bit field of the optional header."""
        return self._number(at, 4)

    def directory(self, index: int) -> tuple[int, int]:
        """The two numbers of a data directory: address (a file offset for the signature) and size; (0, 0) when there is none."""
        start = _DIRECTORIES.get(self.form, 0)
        if not start or self.long(start - 4) <= index or self.directory_at(index) + 8 > self.table:
            return 0, 0
        return self.long(start + index * 8), self.long(start + index * 8 + 4)

    def directory_at(self, index: int) -> int:
        """The file offset of a data directory's row."""
        return self.optional + _DIRECTORIES[self.form] + index * 8

    def _number(self, at: int, size: int) -> int:
        data = self.source.peek(self.optional + at, size)
        return int.from_bytes(data, "little") if len(data) == size else 0
