"""A library of a wheel as it lies there, one deflate stream: its section table, and where each of its modules begins when unpacked.

The section table is at the end of the stream. That the wrappers of modules lead to their fatbins is in the relocations, near its beginning.
"""

from __future__ import annotations

import struct
import zipfile
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source, SourceStream
from fatpatch.binfmt.deflate import DeflatePart, from_middle, from_start
from fatpatch.binfmt.elf import read as elf
from fatpatch.binfmt.elf.elf64 import HEADER, RELA, SECTION, header_of, rows
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import Container, Section
from fatpatch.scan.ledgers import LIBRARY

BLOCK: Final = 16 << 10
"""In such blocks a file on a server is fetched."""

_TAILS: Final = (32 << 10, 64 << 10, 128 << 10, 192 << 10, 320 << 10)
_SHORT_STREAM: Final = 96 << 10
_HEADS: Final = (64 << 10, 96 << 10, 128 << 10, 192 << 10, 256 << 10, 384 << 10, 512 << 10)
_GROWTH: Final = 32
_FEW: Final = 8
FATBINS: Final = (".nv_fatbin", "__nv_relfatbin")
SEGMENT: Final = ".nvFatBinSegment"
RELOCATIONS: Final = ".rela.dyn"
_NAMES: Final = tuple(name.encode() + b"\0" for name in (*FATBINS, SEGMENT, RELOCATIONS))
_WRAPPER_SIZE: Final = 24
_POINTER_AT: Final = 8
_RELATIVE: Final = frozenset({n.R_X86_64_RELATIVE, n.R_AARCH64_RELATIVE})


class Budget:
    """What may still be fetched of a file: each block counts once."""

    def __init__(self, most: int, block: int = BLOCK) -> None:
        self.left = most
        self.block = block
        self._have = set[int]()

    def share(self, count: int) -> Budget:
        """An equal share for one of so many: what it reads is no longer left here."""
        part = Budget(self.left // max(count, 1), self.block)
        part._have = set(self._have)
        self.left -= part.left
        return part

    def read(self, source: Source, at: int, size: int) -> bytes:
        """The bytes at a place; none where they are more than what is left."""
        at, end = max(at, 0), min(at + size, source.size)
        if at >= end:
            return b""
        fresh = set(range((source.base + at) // self.block, (source.base + end - 1) // self.block + 1)) - self._have
        if len(fresh) * self.block > self.left:
            return b""
        self.left -= len(fresh) * self.block
        self._have |= fresh
        return source.peek(at, end - at)


class PackedLibrary(NamedTuple):
    """A library in a wheel: its name, its packed bytes, and what they unpack to."""

    name: str
    source: Source
    size: int


class Anchor(NamedTuple):
    """A place in what a stream unpacks to, and where it lies in the stream, give or take ``slack``."""

    plain: int
    packed: int
    slack: int = 0


class Look(NamedTuple):
    """A part of a stream that was unpacked, where it lies, and of which byte of the library its first one is, where that is known."""

    part: DeflatePart
    at: int
    start: int | None = None

    @property
    def end(self) -> int:
        """Behind which byte of the library it ends; 0 where that is not known."""
        return 0 if self.start is None else self.start + len(self.part.data)

    def packed(self, place: int) -> int:
        """Where a place in the part lies in the stream."""
        return self.at + self.part.start + self.part.packed_before(place)


class ModulePlaces(NamedTuple):
    """What a library says about its modules: (start, size) of each when unpacked, in order; none in one without fatbins.

    ``ends``: the first and the last part of the stream.
    """

    detail: str
    modules: tuple[tuple[int, int], ...] = ()
    ends: tuple[Look, ...] = ()


class Members(NamedTuple):
    """The libraries of a wheel by its directory: (name, offset of the local header, packed size, size) of each."""

    rows: tuple[tuple[str, int, int, int], ...]

    @property
    def packed(self) -> int:
        """Packed bytes of all."""
        return sum(row[2] for row in self.rows)


def members_of(source: Source) -> Members:
    """The deflated libraries of a wheel; none where one of them is stored, since that can be read where it lies."""
    try:
        with zipfile.ZipFile(SourceStream(source)) as wheel:
            found = [row for row in wheel.infolist() if LIBRARY.search(row.filename) and row.file_size]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, FatpatchError):
        return Members(())
    if any(row.compress_type != zipfile.ZIP_DEFLATED or row.flag_bits & 1 for row in found):
        return Members(())
    return Members(tuple((row.filename, row.header_offset, row.compress_size, row.file_size) for row in found))


def library_of(source: Source, row: tuple[str, int, int, int], budget: Budget) -> PackedLibrary | None:
    """The library of a row; None where its local header is none."""
    name, at, packed, size = row
    local = budget.read(source, at, 30)
    if len(local) < 30 or local[:4] != n.ZIP_LOCAL_MAGIC:
        return None
    start = at + 30 + sum(struct.unpack_from("<HH", local, 26))
    return PackedLibrary(name, source.slice(start, packed), size) if start + packed <= source.size else None


def places_of(library: PackedLibrary, budget: Budget) -> ModulePlaces | None:
    """Where the modules of an ELF library lie; None where that cannot be had from both ends of its stream."""
    head = from_start(budget.read(library.source, 0, 16 << 10), HEADER.size)
    found = _end(library, head, budget) if head[:4] == n.ELF_MAGIC and len(head) == HEADER.size else None
    if found is None:
        return None
    container, tail = found
    sections = {section.name: section for section in container.sections}
    fatbins = [sections[name] for name in FATBINS if name in sections]
    if not fatbins:
        return ModulePlaces(container.detail)
    if not {SEGMENT, RELOCATIONS} <= set(sections):
        return None
    relocations, segment = sections[RELOCATIONS], sections[SEGMENT]
    begin = _begin(library, relocations.offset + relocations.size, budget)
    if begin is None:
        return None
    modules = modules_of(begin.part.data[relocations.offset : relocations.offset + relocations.size], segment, fatbins)
    if not modules or (len(fatbins) > 1 and len(modules) > _FEW):
        return None  # with relocatable code one module among many is what the linker made of it, for targets of its own
    end = Look(tail._replace(start=0), library.source.size - len(tail.packed), library.size - len(tail.data))
    return ModulePlaces(container.detail, modules, (begin, end))


def _end(library: PackedLibrary, head: bytes, budget: Budget) -> tuple[Container, DeflatePart] | None:
    """The sections of a library by the last bytes of its stream, and what these unpack to."""
    header = header_of(head)
    if header is None or not header.shnum or header.shstrndx >= header.shnum:
        return None
    for size in _TAILS:
        tail = _tail(library, size, budget)
        if tail is None or not tail.ended:
            continue
        found = sections_of(library.name, library.size, head, tail)
        if found is not None:
            return found, tail
    return None


def sections_of(name: str, size: int, head: bytes, tail: DeflatePart) -> Container | None:
    """The sections of a library of such a size by its ELF header and its last bytes; None where they are not known."""
    header, behind = header_of(head), size - len(tail.data)
    if header is None or not header.shnum or header.shstrndx >= header.shnum or behind < 0:
        return None
    at = header.shoff - behind
    if not tail.likely(at, at + header.shnum * SECTION.size):
        return None
    strings = SECTION.unpack_from(tail.data, at + header.shstrndx * SECTION.size)
    names = strings[4] - behind
    if not tail.likely(names, names + strings[5]):
        return None
    offsets = [names + row[0] for row in SECTION.iter_unpack(tail.data[at : at + header.shnum * SECTION.size])]
    whole = Source.joined([Source.of(head[:behind]), Source.zeros(max(behind - len(head), 0)), Source.of(_named(tail, offsets))])
    diagnostics = Diagnostics()
    try:
        container = elf.read(whole, name, diagnostics)
    except FatpatchError:
        return None
    return None if diagnostics.finish() or not container.sections else container


def _named(tail: DeflatePart, offsets: list[int]) -> bytes:
    """What the last bytes unpack to, with the names of sections at these offsets: of one that is known by half the rest is filled in."""
    data = bytearray(tail.data)
    for at in offsets:
        for name in _NAMES:
            here, other = tail.data[at : at + len(name)], tail.other[at : at + len(name)]
            known = [index for index, (one, two) in enumerate(zip(here, other, strict=True)) if one == two]
            if len(here) == len(name) and 2 * len(known) >= len(name) and all(here[index] == name[index] for index in known):
                data[at : at + len(name)] = name
    return bytes(data)


def _tail(library: PackedLibrary, size: int, budget: Budget) -> DeflatePart | None:
    """The last packed bytes of a library; of a short one all."""
    packed = library.source.size
    if packed <= max(size, _SHORT_STREAM):
        data = from_start(budget.read(library.source, 0, packed), library.size)
        return DeflatePart(data, data, 0, len(data) == library.size)
    return from_middle(budget.read(library.source, packed - size, size))


def _begin(library: PackedLibrary, end: int, budget: Budget) -> Look | None:
    """The beginning of a stream, up to a place of the library at least."""
    for size in _HEADS:
        packed = budget.read(library.source, 0, size)
        plain = from_start(packed, size * _GROWTH)
        if len(plain) >= end:
            return Look(DeflatePart(plain, plain, 0, False, packed), 0, 0)
    return None


def modules_of(relocations: bytes, segment: Section, fatbins: list[Section]) -> tuple[tuple[int, int], ...]:
    """(start, size) of each module: where the wrappers lead, up to the next one or the end of the section."""
    starts = set[int]()
    for place, info, addend in rows(RELA, relocations):
        within = place - segment.address
        if info in _RELATIVE and 0 <= within < segment.size and within % _WRAPPER_SIZE == _POINTER_AT:
            starts.update(addend - each.address + each.offset for each in fatbins if 0 <= addend - each.address < each.size)
    ordered = sorted(starts)
    if len(ordered) * _WRAPPER_SIZE > segment.size:
        return ()
    found = []
    for index, start in enumerate(ordered):
        section = next(each for each in fatbins if each.offset <= start < each.offset + each.size)
        end = section.offset + section.size
        found.append((start, min(ordered[index + 1], end) - start if index + 1 < len(ordered) else end - start))
    return tuple(found)
