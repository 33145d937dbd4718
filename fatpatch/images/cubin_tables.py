"""The sections, symbols, records and notes of a whole cubin (reference: cubin ELF, sections 4 and 4.1).

All methods bounds-check: a cubin is hostile input, and a damaged one must give a FormatError that names the field.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from fatpatch.errors import FormatError
from fatpatch.formats import numbers as n
from fatpatch.images.cubin import SECTION_SIZE, Identity, identify, toolkit_name

SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
SHT_SYMTAB = 2
SHT_NOTE = 7
SHT_CUDA_INFO = 0x70000000
SHT_CUDA_COMPAT = 0x70000086
_MAX_SECTIONS = 1 << 20
_ARCH_ARGUMENT = re.compile(rb"-arch[ =]*(?:sm|compute)_(\d+)([af]?)\b")


class SectionRow(NamedTuple):
    """One section header of a cubin."""

    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int


class Tables:
    """A parsed cubin; ``data`` is all of it."""

    __slots__ = ("by_name", "data", "identity", "sections")

    def __init__(self, data: bytes) -> None:
        identity = identify(data)
        if identity is None or data[:4] != n.ELF_MAGIC:
            raise FormatError(f"expected a cubin (7f454c46), got {data[:4].hex() or 'nothing'}", offset=0, field="cubin")
        for field, at, message in identity.complaints(len(data)):
            raise FormatError(message, offset=at, field=field)
        self.data = data
        self.identity: Identity = identity
        self.sections = self._read_sections()
        self.by_name = {row.name: row for row in self.sections}

    def _read_sections(self) -> list[SectionRow]:
        identity, data = self.identity, self.data
        table = memoryview(data)[identity.section_offset : identity.section_offset + identity.section_count * SECTION_SIZE]
        raw = list(SECTION.iter_unpack(table))
        names_at, names_size = raw[identity.names_index][4:6]
        names = data[names_at : names_at + names_size]
        result = []
        for name_at, kind, flags, _, offset, size, link, info, _, _ in raw:
            end = names.find(b"\0", name_at)
            result.append(SectionRow(names[name_at:end].decode("utf-8", "backslashreplace"), kind, flags, offset, size, link, info))
        return result

    def content(self, row: SectionRow) -> bytes:
        """The bytes of a section; FormatError when it reaches outside the cubin."""
        end = row.offset + row.size
        if row.kind == n.SHT_NOBITS:
            return b""
        if end > len(self.data):
            message = f"section {row.name[:80]} ends at {end:#x}, the cubin at {len(self.data):#x}"
            raise FormatError(message, offset=row.offset, field="sh_size")
        return self.data[row.offset : end]

    def symbols(self) -> tuple[list[tuple[int, int, int, int, int, int]], bytes]:
        """Raw symbols (name, info, other, section, value, size) and the string table of their names."""
        row = next((row for row in self.sections if row.kind == SHT_SYMTAB), None)
        if row is None:
            return [], b""
        if row.link >= len(self.sections):
            raise FormatError(f"expected a section below {len(self.sections)}, got {row.link}", offset=row.offset, field="sh_link")
        table = self.content(row)
        return list(SYMBOL.iter_unpack(table[: len(table) // SYMBOL.size * SYMBOL.size])), self.content(self.sections[row.link])

    def toolkit(self) -> str | None:
        """``CUDA 12.9``: from e_version (old layout) or from the notes (new layout)."""
        if not self.identity.new_layout:
            return self.identity.toolkit
        info = self._note(n.NOTE_CUDA_INFO, ".note.nv.cuinfo")
        if len(info) >= 8 and info[:2] == b"\x02\0" and (name := toolkit_name(struct.unpack_from("<I", info, 4)[0])):
            return name
        tool = self._note(n.NOTE_TOOLKIT_INFO, ".note.nv.tkinfo")
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
                argument = _ARCH_ARGUMENT.search(self._note(n.NOTE_TOOLKIT_INFO, ".note.nv.tkinfo"))
                if argument and int(argument[1]) == self.identity.arch:
                    suffix = argument[2].decode()
        return f"sm_{self.identity.arch if self.identity.arch is not None else 0}{suffix}"

    def _accelerator_record(self) -> bool:
        row = self.by_name.get(".nv.compat")
        if row is None:
            return False
        return any(code == n.COMPAT_ACCELERATOR_TARGET and value[:1] == b"\1" for code, value in records(self.content(row)))

    def _note(self, kind: int, section: str) -> bytes:
        """The description of the note of a type in a section; b"" when there is none."""
        row = self.by_name.get(section)
        data = b"" if row is None else self.content(row)
        at = 0
        while at + 12 <= len(data):
            name_size, size, found = struct.unpack_from("<III", data, at)
            start = at + 12 + (name_size + 3 & ~3)
            if found == kind:
                return data[start : start + size]
            at = start + (size + 3 & ~3)
        return b""


def records(data: bytes) -> list[tuple[int, bytes]]:
    """(attribute, value) of each record of a .nv.info or .nv.compat section; stops at the first that does not fit."""
    result = []
    at, end = 0, len(data) - 3
    while at < end:
        form, code = data[at], data[at + 1]
        if form == n.EIFMT_SVAL:
            stop = at + 4 + (data[at + 2] | data[at + 3] << 8)
            result.append((code, data[at + 4 : stop]))
            at = stop
        elif n.EIFMT_NVAL <= form <= n.EIFMT_HVAL:
            result.append((code, data[at + 2 : at + 4]))
            at += 4
        else:
            break
    return result
