"""A library of a .tgz as it lies in the stream: its sections, and where its modules begin, by the parts that have its two ends."""

from __future__ import annotations

from typing import Final

from fatpatch.base.errors import UnsupportedError
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.deflate import DeflatePart
from fatpatch.binfmt.elf.elf64 import HEADER, header_of
from fatpatch.formats import numbers as n
from fatpatch.model.tree import Container
from fatpatch.scan.packed_library import FATBINS, RELOCATIONS, SEGMENT, Look, ModulePlaces, PackedLibrary, modules_of, sections_of
from fatpatch.scan.packed_tar import PackedTar, TarMember

_MOST_TAIL: Final = 320 << 10
_MOST_HEAD: Final = 512 << 10
_MOST_WARM: Final = 96 << 10
_STEP: Final = 32 << 10


class TarLibrary(NamedTuple):
    """A library with CUDA modules: its packed bytes, from before its beginning on, and where its modules are."""

    library: PackedLibrary
    places: ModulePlaces


def cuda_library(tar: PackedTar, member: TarMember) -> TarLibrary | None:
    """The library of a member; None where it has no CUDA modules. UnsupportedError where that cannot be had from both of its ends."""
    head = _head(tar, member)
    container, end = _sections(tar, member, head)
    sections = {section.name: section for section in container.sections}
    fatbins = [sections[name] for name in FATBINS if name in sections]
    if not fatbins:
        return None
    if not {SEGMENT, RELOCATIONS} <= set(sections):
        raise UnsupportedError("has fatbins that no relocation leads to", locator=member.name)
    table = sections[RELOCATIONS]
    begin, rows = _relocations(tar, member, table.offset, table.size)
    modules = modules_of(rows, sections[SEGMENT], fatbins)
    if not modules:
        raise UnsupportedError("has fatbins that no wrapper leads to", locator=member.name)
    inside = member.data + member.size - (end.start or 0)
    first, last = max(begin.at - tar.budget.block, 0), min(end.packed(inside), tar.source.size)
    tail = DeflatePart(end.part.data[:inside], end.part.other[:inside], 0, True, end.part.packed)
    ends = (
        begin._replace(at=begin.at - first, start=(begin.start or 0) - member.data),
        Look(tail, end.at + end.part.start - first, (end.start or 0) - member.data),
    )
    library = PackedLibrary(member.name, tar.source.slice(first, last - first), member.size)
    return TarLibrary(library, ModulePlaces(container.detail, modules, ends))


def _head(tar: PackedTar, member: TarMember) -> bytes:
    """The ELF header of a library. Of unknown bytes it is known that they are zero by where it says that the sections end."""
    look: Look | None = member.begin
    while look is not None and look.start is not None:
        at = member.data - look.start
        head = look.part.data[at : at + HEADER.size]
        elf = header_of(head)
        if elf is not None and elf.ident[:4] == n.ELF_MAGIC and elf.sections_end == member.size and look.part.likely(at, at + HEADER.size):
            return head
        look = tar.before(look, _STEP) if len(look.part.packed) < _MOST_WARM else None
    raise UnsupportedError("is not an ELF library whose header is known", locator=member.name)


def _sections(tar: PackedTar, member: TarMember, head: bytes) -> tuple[Container, Look]:
    """The sections by the last bytes of a library, and the part that has them."""
    look: Look | None = member.end
    while look is not None and look.start is not None:
        end = member.data + member.size - look.start
        begin = max(end - member.size, 0)
        tail = DeflatePart(look.part.data[begin:end], look.part.other[begin:end], 0, True)
        container = sections_of(member.name, member.size, head, tail)
        if container is not None:
            return container, look
        look = tar.before(look, _STEP) if len(look.part.packed) < _MOST_TAIL else None
    raise UnsupportedError("the sections are not known", locator=member.name)


def _relocations(tar: PackedTar, member: TarMember, offset: int, size: int) -> tuple[Look, bytes]:
    """The relocations of a library, and the part that has them."""
    look: Look | None = member.begin
    while look is not None:
        found = _at(look, member.data + offset, size)
        if found is not None:
            return look, found
        look = tar.behind(look, len(look.part.packed)) if len(look.part.packed) < _MOST_HEAD else None
    raise UnsupportedError("the relocations are not known", locator=member.name)


def _at(look: Look, place: int, size: int) -> bytes | None:
    """Bytes of the archive, when they are in a part and known."""
    at = place - (look.start or 0)
    if look.start is None or not look.part.known(at, at + size):
        return None
    return look.part.data[at : at + size]
