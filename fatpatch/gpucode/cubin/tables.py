"""The sections, symbols, records and notes of a whole cubin (reference: cubin ELF, sections 4 and 4.1).

All methods bounds-check: a cubin is hostile input, and a damaged one must give a FormatError that names the field.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.elf.elf64 import SECTION, SYMBOL
from fatpatch.formats import numbers as n
from fatpatch.gpucode.cubin.header import SECTION_SIZE, CubinHeader, identify, toolkit_name

SHT_SYMTAB = 2
SHT_NOTE = 7
SHT_CUDA_INFO = 0x70000000
SHT_CUDA_COMPAT = 0x70000086
WITHOUT_BYTES = frozenset({n.SHT_NOBITS, 0x70000007, 0x70000009, 0x7000000A})
"""Section types that take no bytes of the file: also NVIDIA's uninitialized global, local and shared memory in relocatable cubins."""
_MAX_OVERLAP = 16
_MAX_NAMES = 3  # times the table: real tables share few tails
_ARCH_ARGUMENT = lazy_pattern(rb"-arch[ =]*(?:sm|compute)_(\d{1,4})([af]?)\b")


Row = tuple[int, int, int, int, int, int, int, int, int, int]
"""One raw section header: name, type, flags, address, offset, size, link, info, alignment, entry size (Elf64_Shdr)."""
TYPE, OFFSET, SIZE, LINK, INFO = 1, 4, 5, 6, 7


class Tables:
    """A parsed cubin; ``data`` is all of it."""

    __slots__ = ("_by_name", "_names", "data", "identity", "rows")

    def __init__(self, data: bytes) -> None:
        identity = identify(data)
        if identity is None or data[:4] != n.ELF_MAGIC:
            raise FormatError(f"expected a cubin (7f454c46), got {data[:4].hex() or 'nothing'}", offset=0, field="cubin")
        for field, at, message in identity.complaints(len(data)):
            raise FormatError(message, offset=at, field=field)
        self.data = data
        self.identity: CubinHeader = identity
        table = data[identity.section_offset : identity.section_offset + identity.section_count * SECTION_SIZE]
        self.rows: list[Row] = list(SECTION.iter_unpack(table))
        names_row = self.rows[identity.names_index]
        self._names = data[names_row[OFFSET] : names_row[OFFSET] + names_row[SIZE]]
        self._by_name: dict[bytes, Row] | None = None
        if sum(row[SIZE] for row in self.rows if row[TYPE] not in WITHOUT_BYTES) > _MAX_OVERLAP * len(data):
            raise LimitError("the sections overlap without end", offset=identity.section_offset, field="sh_size")

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
                    raise LimitError("the section names overlap without end", offset=self.identity.section_offset, field="sh_name")
        return self._by_name

    def find(self, kind: int, name: bytes) -> Row | None:
        """The section of a type and name, without making the table of names."""
        wanted = name + b"\0"
        return next((row for row in self.rows if row[TYPE] == kind and self._names.startswith(wanted, row[0])), None)

    def content(self, row: Row | None) -> bytes:
        """The bytes of a section, none for one that is absent; FormatError when it reaches outside the cubin."""
        if row is None or row[TYPE] in WITHOUT_BYTES:
            return b""
        offset, end = row[OFFSET], row[OFFSET] + row[SIZE]
        if end > len(self.data):
            raise FormatError(f"a section ends at {end:#x}, the cubin at {len(self.data):#x}", offset=offset, field="sh_size")
        return self.data[offset:end]

    def refuse_cut(self) -> None:
        """FormatError when any section reaches outside the cubin: ``content`` sees only those that are read.

        Of NVIDIA's own types some take no bytes (0x7000000A, shared memory of relocatable cubins), so only the common ones count.
        """
        for row in self.rows:
            if row[TYPE] not in (0, n.SHT_NOBITS) and row[TYPE] < SHT_CUDA_INFO and row[OFFSET] + row[SIZE] > len(self.data):
                self.content(row)

    def symbols(self) -> tuple[Iterator[tuple[int, ...]], bytes]:
        """Raw symbols (name, info, other, section, value, size) and the string table of their names."""
        row = next((row for row in self.rows if row[TYPE] == SHT_SYMTAB), None)
        if row is None:
            return iter(()), b""
        if row[LINK] >= len(self.rows):
            raise FormatError(f"expected a section below {len(self.rows)}, got {row[LINK]}", offset=row[OFFSET], field="sh_link")
        table = self.content(row)
        return SYMBOL.iter_unpack(table[: len(table) // SYMBOL.size * SYMBOL.size]), self.content(self.rows[row[LINK]])

    def toolkit(self) -> str | None:
        """``CUDA 12.9``: from e_version (old layout) or from the notes (new layout)."""
        if not self.identity.new_layout:
            return self.identity.toolkit
        info = self._note(n.NOTE_CUDA_INFO, b".note.nv.cuinfo")
        if len(info) >= 8 and info[:2] == b"\x02\0" and (name := toolkit_name(struct.unpack_from("<I", info, 4)[0])):
            return name
        tool = self._note(n.NOTE_TOOLKIT_INFO, b".note.nv.tkinfo")
        if len(tool) >= 4 and (name := toolkit_name(struct.unpack_from("<I", tool)[0])):
            return name
        release = re.search(rb"release (\d+)\.(\d+)", tool)
        return f"CUDA {release[1].decode()}.{release[2].decode()}" if release else None

    def target(self) -> str:
        """``sm_90a``, with the suffix also where e_flags do not say it (.nv.compat, the ptxas command line)."""
        suffix = "a" if self.identity.accelerated else ""
        if self.identity.new_layout and not suffix:
            if self._accelerator_record():
                suffix = "a"
            else:
                argument = _ARCH_ARGUMENT.search(self._note(n.NOTE_TOOLKIT_INFO, b".note.nv.tkinfo"))
                if argument and int(argument[1]) == self.identity.arch:
                    suffix = argument[2].decode()
        return f"sm_{self.identity.arch if self.identity.arch is not None else 0}{suffix}"

    def _accelerator_record(self) -> bool:
        compat = self.content(self.find(SHT_CUDA_COMPAT, b".nv.compat"))
        return any(code == n.COMPAT_ACCELERATOR_TARGET and value[:1] == b"\1" for code, value in records(compat))

    def _note(self, kind: int, section: bytes) -> bytes:
        """The description of the note of a type in a section; b"" when there is none."""
        found = notes(self.content(self.find(SHT_NOTE, section)))
        return next((description for number, _, description in found if number == kind), b"")


def notes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type, name, description) of each note of a section (gABI, note section)."""
    at = 0
    while at + 12 <= len(data):
        name_size, size, kind = struct.unpack_from("<III", data, at)
        start = at + 12 + (name_size + 3 & ~3)
        yield kind, data[at + 12 : at + 12 + name_size], data[start : start + size]
        at = start + (size + 3 & ~3)


def name_budget(table_size: int) -> int:
    """Bytes that all names of a string table may add up to: real tables share some tails, hostile ones share everything."""
    return _MAX_NAMES * table_size + (1 << 20)


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(attribute, value) of each record of a .nv.info or .nv.compat section; stops at the first that does not fit."""
    at, end = 0, len(data) - 3
    while at < end:
        form, code = data[at], data[at + 1]
        if form == n.EIFMT_SVAL:
            stop = at + 4 + (data[at + 2] | data[at + 3] << 8)
            yield code, data[at + 4 : stop]
            at = stop
        elif n.EIFMT_NVAL <= form <= n.EIFMT_HVAL:
            yield code, data[at + 2 : at + 4]
            at += 4
        else:
            break
