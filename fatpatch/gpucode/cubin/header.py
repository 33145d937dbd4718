"""The identity of a cubin: SM number, suffix and toolkit as far as its 64-byte ELF header says them.

Source of the facts: reference, cubin ELF. EI_OSABI tells which of the two e_flags layouts holds: 0x33 old, 0x41 new.
"""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import SECTION, ElfHeader, header_of
from fatpatch.formats import numbers as n

_FIRST_SUFFIXED = 90


class CubinHeader(NamedTuple):
    """The ELF header of a cubin in the field's terms; ``arch`` is None when the layout is unknown."""

    arch: int | None
    accelerated: bool
    toolkit: str | None
    new_layout: bool
    elf: ElfHeader

    @property
    def relocatable(self) -> bool:
        """Whether it is to be linked."""
        return self.elf.type == n.ET_REL

    def sound(self, size: int) -> bool:
        """Whether there is nothing to complain about."""
        elf = self.elf
        return elf.machine == n.EM_CUDA and elf.shstrndx < elf.shnum and elf.sections_fit(size)

    def complaints(self, size: int) -> Iterator[tuple[str, int, str]]:
        """(field, offset in the cubin, message) for each part of the header that cannot hold in ``size`` bytes."""
        elf = self.elf
        if elf.machine != n.EM_CUDA:
            yield "e_machine", 18, f"expected {n.EM_CUDA} (CUDA), got {elf.machine}"
        if elf.shentsize != SECTION.size:
            yield "e_shentsize", 58, f"expected {SECTION.size}, got {elf.shentsize}"
        elif elf.shnum == 0:
            yield "e_shnum", 60, "expected section headers, got 0"
        elif elf.sections_end > size:
            field, at = ("e_shoff", 40) if elf.shoff + SECTION.size > size else ("e_shnum", 60)
            yield field, at, f"the section headers end at {elf.sections_end:#x}, the cubin at {size:#x}"
        elif elf.shstrndx >= elf.shnum:
            yield "e_shstrndx", 62, f"expected less than {elf.shnum}, got {elf.shstrndx}"


def identify(data: bytes) -> CubinHeader | None:
    """The identity in the first 64 bytes of a cubin; None when they are not there."""
    elf = header_of(data)
    if elf is None:
        return None
    osabi = elf.ident[7]
    arch: int | None = None
    accelerated, toolkit = False, None
    if osabi == n.CUBIN_OSABI_OLD:
        arch = elf.flags & 0xFF
        accelerated = bool(elf.flags & n.EF_ACCELERATED_OLD) and arch >= _FIRST_SUFFIXED  # libcublas has the bit on sm_50 to sm_61
        toolkit = toolkit_name(elf.version)
    elif osabi == n.CUBIN_OSABI_NEW:
        arch, accelerated = elf.flags >> 8 & 0xFFFF, bool(elf.flags & n.EF_ACCELERATED_NEW)
    return CubinHeader(arch, accelerated, toolkit, osabi == n.CUBIN_OSABI_NEW, elf)


def toolkit_name(number: int) -> str | None:
    """``CUDA 12.9`` for 129: the toolkit times ten; None for what no toolkit writes."""
    return f"CUDA {number // 10}.{number % 10}" if 30 <= number <= 400 else None
