"""The headers of a PE32+ file as its editor needs them (reference: PE/COFF specification)."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator

from fatpatch.base.errors import EditError, FormatError, UnsupportedError
from fatpatch.base.overlay import Write
from fatpatch.base.source import Source
from fatpatch.binfmt.pe.tables import (
    FILE_ALIGNMENT,
    HEADERS_SIZE,
    IMAGE_SIZE,
    RELOCATIONS,
    RELOCATIONS_STRIPPED,
    SECTION,
    SECTION_ALIGNMENT,
    PeSection,
    PeTables,
)

_FULL32 = 0xFFFFFFFF
_MAX_ALIGNMENT = 1 << 24
_POINTER_SIZES = {10: 8, 3: 4}
"""Bytes of what a base relocation of a type relocates: DIR64, HIGHLOW."""
_BLOCK = struct.Struct("<II")
_MAX_RELOCATIONS = 64 << 20
_LONG, _HALF = struct.Struct("<I"), struct.Struct("<H")


class PeFile(PeTables):
    """The headers of a PE32+ file; UnsupportedError when it is of another kind."""

    def __init__(self, source: Source, locator: str) -> None:
        super().__init__(source)
        self.locator = locator
        if not self.wide:
            raise UnsupportedError("only 64-bit PE files (PE32+) can be edited", locator=locator)
        if self.count > len(self.sections):
            message = f"{self.count} sections announced, room for {len(self.sections)}"
            raise FormatError(message, locator=locator, offset=self.file_header + 2, field="NumberOfSections")
        if not self.sections:
            raise UnsupportedError("has no sections", locator=locator)
        self._by_address = sorted(self.sections, key=lambda section: section.address)
        self._starts = [section.address for section in self._by_address]
        self.section_alignment = self.long(SECTION_ALIGNMENT) or 0x1000
        self.file_alignment = self.long(FILE_ALIGNMENT) or 0x200
        powers = all(each & each - 1 == 0 for each in (self.section_alignment, self.file_alignment))
        if not powers or not 0x200 <= self.file_alignment <= 0x10000 or not 0x1000 <= self.section_alignment <= _MAX_ALIGNMENT:
            raise UnsupportedError("its section or file alignment is not one of a DLL or program", locator=locator)

    def put(self, at: int, value: int) -> Write:
        """The write of a 32-bit field of the optional header."""
        self.refuse_wide(value)
        return Write.of(self.optional + at, _LONG.pack(value))

    def refuse_wide(self, *values: int) -> None:
        """EditError when a number does not fit its 32 bits any more, as in a file with absurd sizes."""
        if max(values) > _FULL32:
            raise EditError(f"would need the number {max(values):#x} in a field of 32 bits", locator=self.locator)

    def row(self, index: int, section: PeSection) -> Write:
        """The write of a section header."""
        self.refuse_wide(*section[1:])
        return Write.of(self.table + index * SECTION.size, SECTION.pack(*section))

    @property
    def last(self) -> int:
        """The index of the section that is last in memory."""
        return max(range(len(self.sections)), key=lambda index: self.sections[index].address)

    @property
    def image_size(self) -> int:
        """SizeOfImage."""
        return self.long(IMAGE_SIZE)

    def address_of(self, offset: int) -> int:
        """Where the byte at a file offset is loaded, from the image base on."""
        for section in self.sections:
            if section.offset <= offset < section.offset + section.raw_size:
                return section.address + offset - section.offset
        raise EditError("lies in no section", locator=self.locator, offset=offset)

    def offset_of(self, address: int) -> int | None:
        """Where the byte at an address (from the image base on) is in the file; None when it is nowhere."""
        section = self._by_address[max(bisect.bisect_right(self._starts, address) - 1, 0)]
        inside = section.address <= address < section.address + min(section.raw_size, section.virtual_size or section.raw_size)
        return section.offset + address - section.address if inside else None

    @property
    def fixed(self) -> bool:
        """Whether it can only be loaded at the address it was linked for, so that no relocations say where its pointers are."""
        return bool(self.flags & RELOCATIONS_STRIPPED) or not self.directory(RELOCATIONS)[1]

    def relocated(self) -> Iterator[tuple[int, int]]:
        """(address, bytes) of all pointers that the base relocations name."""
        address, size = self.directory(RELOCATIONS)
        start = self.offset_of(address) if size else None
        data = b"" if start is None else self.source.peek(start, min(size, _MAX_RELOCATIONS))
        at = 0
        while at + _BLOCK.size <= len(data):
            page, length = _BLOCK.unpack_from(data, at)
            if length < _BLOCK.size:
                return
            block = data[at + _BLOCK.size : at + length]
            for (entry,) in _HALF.iter_unpack(block[: len(block) // 2 * 2]):
                if entry >> 12 in _POINTER_SIZES:
                    yield page + (entry & 0xFFF), _POINTER_SIZES[entry >> 12]
            at += length

    def has_room(self) -> bool:
        """Whether another section header fits behind the table, over zeros, before the first section's bytes."""
        end = self.table + (len(self.sections) + 1) * SECTION.size
        first = min((section.offset for section in self.sections if section.offset), default=0)
        return end <= min(self.long(HEADERS_SIZE), first) and not any(self.source.read(end - SECTION.size, SECTION.size))
