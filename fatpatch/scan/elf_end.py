"""The last bytes of an ELF library: the table of its sections, which linkers write last."""

from __future__ import annotations

from typing import Final

from fatpatch.binfmt.deflate import DeflatePart
from fatpatch.binfmt.elf.elf64 import SECTION, ElfHeader, SectionRow
from fatpatch.binfmt.tar.read import BLOCK

_STRINGS: Final = 3
_WITHOUT_BYTES: Final = 8
_EMPTY: Final = bytes(SECTION.size)
_MOST_SECTIONS: Final = 512
_ALIGNED: Final = (1, 8, 16)
"""Behind its content the table of sections begins at a multiple of one of these."""


def table_fits(part: DeflatePart, end: int, header: ElfHeader, size: int) -> bool:
    """Whether the sections of a library with such a header and size end at a place in a part."""
    at = end - size + header.shoff
    if header.sections_end != size or header.shstrndx >= header.shnum or not part.likely(at, end):
        return False
    rows = _rows(part, at, end)
    return not any(rows[0]) and rows[header.shstrndx].type == _STRINGS and _content_end(rows) <= header.shoff


def size_by_end(part: DeflatePart, end: int) -> int | None:
    """The size of the library that ends up to a block of a tar archive before a place in a part; None where it is not known.

    The table of sections is the last of it, and lies behind the last content that it names; the first of its rows is empty.
    """
    for last in range(end, max(end - BLOCK, SECTION.size), -1):
        if part.data[last:end].strip(b"\0"):
            return None
        size = _size(part, last)
        if size is not None and -(-size // BLOCK) * BLOCK - size == end - last:
            return size
    return None


def _size(part: DeflatePart, last: int) -> int | None:
    at = last - SECTION.size
    if at < 0 or part.data[at:last] == _EMPTY:
        return None
    for _ in range(_MOST_SECTIONS):
        at -= SECTION.size
        if at < 0:
            return None
        if part.data[at : at + SECTION.size] == _EMPTY and part.likely(at, last):
            rows = _rows(part, at, last)
            content = _content_end(rows)
            begins = {at - -(-content // aligned) * aligned for aligned in _ALIGNED}  # of the library, in the part
            names = [row for row in rows if row.type == _STRINGS]
            found = [begin for begin in begins if any(_names(part, begin + row.offset, row, rows) for row in names)]
            return last - found[0] if content and len(found) == 1 else None
    return None


def _names(part: DeflatePart, place: int, strings: SectionRow, rows: list[SectionRow]) -> bool:
    """Whether the names of sections lie at a place: that of the strings themselves is among them."""
    return part.data[place + strings.name : place + strings.name + 10] == b".shstrtab\0" and all(row.name < strings.size for row in rows)


def _content_end(rows: list[SectionRow]) -> int:
    return max((row.offset + row.size for row in rows if row.type not in (0, _WITHOUT_BYTES)), default=0)


def _rows(part: DeflatePart, at: int, end: int) -> list[SectionRow]:
    return [SectionRow._make(row) for row in SECTION.iter_unpack(part.data[at:end])]
