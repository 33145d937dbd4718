"""The sections, symbols, records and notes of a whole cubin (reference: cubin ELF, sections 4 and 4.1).

All methods bounds-check: a cubin is hostile input, and a damaged one must give a FormatError that names the field.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from fatpatch.base.errors import FormatError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.elf.elf64 import LINK, OFFSET, REL, RELA, SIZE, SYMBOL, TYPE, ElfTables, Row, notes, rows
from fatpatch.formats import numbers as n
from fatpatch.gpucode.cubin.header import CubinHeader, identify, toolkit_name

SHT_CUDA_INFO = 0x70000000
SHT_CUDA_COMPAT = 0x70000086
WITHOUT_BYTES = frozenset({n.SHT_NOBITS, 0x70000007, 0x70000009, 0x7000000A})
"""Section types that take no bytes of the file: also NVIDIA's uninitialized global, local and shared memory in relocatable cubins."""
_MAX_OVERLAP = 16
_ARCH_ARGUMENT = lazy_pattern(rb"-arch[ =]*(?:sm|compute)_(\d{1,4})([af]?)\b")


class Tables(ElfTables):
    """A parsed cubin; ``data`` is all of it."""

    __slots__ = ("identity",)

    def __init__(self, data: bytes) -> None:
        identity = identify(data)
        if identity is None or data[:4] != n.ELF_MAGIC:
            raise FormatError(f"expected a cubin (7f454c46), got {data[:4].hex() or 'nothing'}", offset=0, field="cubin")
        for field, at, message in identity.complaints(len(data)):
            raise FormatError(message, offset=at, field=field)
        self.identity: CubinHeader = identity
        super().__init__(data, identity.elf, "cubin", WITHOUT_BYTES, _MAX_OVERLAP)

    def refuse_cut(self) -> None:
        """FormatError when any section reaches outside the cubin: ``content`` sees only those that are read.

        Of NVIDIA's own types some take no bytes (0x7000000A, shared memory of relocatable cubins), so only the common ones count.
        """
        for row in self.rows:
            if row[TYPE] not in (0, n.SHT_NOBITS) and row[TYPE] < SHT_CUDA_INFO and row[OFFSET] + row[SIZE] > len(self.data):
                self.content(row)

    def symbols(self) -> tuple[Iterator[tuple[int, ...]], bytes]:
        """Raw symbols (name, info, other, section, value, size) and the string table of their names."""
        row = next((row for row in self.rows if row[TYPE] == n.SHT_SYMTAB), None)
        if row is None:
            return iter(()), b""
        if row[LINK] >= len(self.rows):
            raise FormatError(f"expected a section below {len(self.rows)}, got {row[LINK]}", offset=row[OFFSET], field="sh_link")
        table = self.content(row)
        return SYMBOL.iter_unpack(table[: len(table) // SYMBOL.size * SYMBOL.size]), self.content(self.rows[row[LINK]])

    def relocations(self, row: Row) -> Iterator[tuple[int, int, int]]:
        """(offset, symbol, addend) of each relocation of a section, in their order; none when it holds none."""
        if row[TYPE] not in (n.SHT_REL, n.SHT_RELA):
            return
        for offset, info, *addend in rows(RELA if row[TYPE] == n.SHT_RELA else REL, self.content(row)):
            yield offset, info >> 32, addend[0] if addend else 0

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
        found = notes(self.content(self.find(n.SHT_NOTE, section)))
        return next((description for number, _, description in found if number == kind), b"")


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
