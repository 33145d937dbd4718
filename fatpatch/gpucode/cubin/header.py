"""The identity of a cubin: SM number, suffix and toolkit as far as its 64-byte ELF header says them.

Source of the facts: reference, cubin ELF. EI_OSABI tells which of the two e_flags layouts holds: 0x33 old, 0x41 new.
"""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import HEADER, SECTION
from fatpatch.formats import numbers as n

SECTION_SIZE = SECTION.size
_FIRST_SUFFIXED = 90


class CubinHeader(NamedTuple):
    """The ELF header of a cubin in the field's terms; ``arch`` is None when the layout is unknown."""

    arch: int | None
    accelerated: bool
    toolkit: str | None
    machine: int
    relocatable: bool
    section_offset: int
    section_count: int
    section_size: int
    names_index: int
    new_layout: bool

    def sound(self, size: int) -> bool:
        """Whether there is nothing to complain about."""
        return (
            self.machine == n.EM_CUDA
            and self.section_size == SECTION_SIZE
            and 0 <= self.names_index < self.section_count
            and self.section_offset + self.section_count * SECTION_SIZE <= size
        )

    def complaints(self, size: int) -> Iterator[tuple[str, int, str]]:
        """(field, offset in the cubin, message) for each part of the header that cannot hold in ``size`` bytes."""
        if self.machine != n.EM_CUDA:
            yield "e_machine", 18, f"expected {n.EM_CUDA} (CUDA), got {self.machine}"
        if self.section_size != SECTION_SIZE:
            yield "e_shentsize", 58, f"expected {SECTION_SIZE}, got {self.section_size}"
        elif self.section_count == 0:
            yield "e_shnum", 60, "expected section headers, got 0"
        elif self.section_offset + self.section_count * SECTION_SIZE > size:
            field, at = ("e_shoff", 40) if self.section_offset + SECTION_SIZE > size else ("e_shnum", 60)
            end = self.section_offset + self.section_count * SECTION_SIZE
            yield field, at, f"the section headers end at {end:#x}, the cubin at {size:#x}"
        elif self.names_index >= self.section_count:
            yield "e_shstrndx", 62, f"expected less than {self.section_count}, got {self.names_index}"


def identify(data: bytes) -> CubinHeader | None:
    """The identity in the first 64 bytes of a cubin; None when they are not there."""
    if len(data) < HEADER.size:
        return None
    ident, kind, machine, version, _, _, shoff, flags, _, _, _, shentsize, shnum, shstrndx = HEADER.unpack_from(data)
    osabi = ident[7]
    arch: int | None = None
    accelerated, toolkit = False, None
    if osabi == n.CUBIN_OSABI_OLD:
        arch = flags & 0xFF
        accelerated = bool(flags & n.EF_ACCELERATED_OLD) and arch >= _FIRST_SUFFIXED  # libcublas has the bit on sm_50 to sm_61
        toolkit = toolkit_name(version)
    elif osabi == n.CUBIN_OSABI_NEW:
        arch, accelerated = flags >> 8 & 0xFFFF, bool(flags & n.EF_ACCELERATED_NEW)
    return CubinHeader(arch, accelerated, toolkit, machine, kind == n.ET_REL, shoff, shnum, shentsize, shstrndx, osabi == n.CUBIN_OSABI_NEW)


def toolkit_name(number: int) -> str | None:
    """``CUDA 12.9`` for 129: the toolkit times ten; None for what no toolkit writes."""
    return f"CUDA {number // 10}.{number % 10}" if 30 <= number <= 400 else None
