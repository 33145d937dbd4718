"""The x86-64 host code of a file: its executable ranges, its constants, and strings by load address.

Fatbins and tables that hold no constants (relocations, unwind data, symbols) are cut out, so that a search for host strings never
runs over hundreds of megabytes of images.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import CHUNK, Source
from fatpatch.model.kinds import HOSTS, ContainerKind
from fatpatch.model.tree import Node, Section

SEARCH_LIMIT: Final = 256 << 20
"""Bytes of code, and of constants, that are looked at in one file."""

_IMAGES = (".nv_fatb", "__nv_rel", ".nvFatBi", ".hip_fat", ".hipFatB")
_TABLES = (".rela", ".rel.", ".reloc", ".dynsym", ".symtab", ".strtab", ".shstrtab", ".gnu", ".hash", ".note", ".comment", ".rsrc")
_UNWINDING = (".eh_frame", ".gcc_except", ".pdata", ".xdata", ".debug")
_NO_CONSTANTS = (*_IMAGES, *_TABLES, *_UNWINDING)
_MAX_TEXT = 1 << 16
_MAX_PARTS = 1024
_MAX_MAPPED = 256
_EDGE = 16


class HostCode(NamedTuple):
    """A file whose x86-64 code can be read. ``code`` and ``data`` are ranges in file order that do not overlap.

    ``mapped`` is everything that is loaded, ``complete`` False when a limit cut ``code`` or ``data`` off, ``fixed`` True when
    it is loaded at the addresses it was linked for, so that code may hold them as constants.
    """

    source: Source
    kind: str
    code: tuple[Section, ...]
    data: tuple[Section, ...]
    mapped: tuple[Section, ...]
    complete: bool = True
    fixed: bool = False

    def address_of(self, offset: int) -> int | None:
        """The load address of a file offset."""
        for part in self.mapped:
            if part.offset <= offset < part.offset + part.size:
                return part.address + offset - part.offset
        return None

    def offset_of(self, address: int) -> int | None:
        """The file offset of a load address."""
        for part in self.mapped:
            if part.address <= address < part.address + part.size:
                return part.offset + address - part.address
        return None


class CodePiece(NamedTuple):
    """Bytes of a range. Hits that start in [first, last) belong to this piece, the others to its neighbours."""

    address: int
    offset: int
    data: bytes
    first: int
    last: int


def read_host(node: Node) -> tuple[HostCode | None, str]:
    """The host code of a node; None and the reason where fatpatch cannot read it."""
    if node.source is None or node.container not in HOSTS:
        return None, f"{node.container} is not an ELF or PE file: its host code is not read"
    container = node.layout
    if not container.detail.startswith("x86-64"):
        return None, f"{container.detail or 'this machine'} is not x86-64: its host code is not read"
    if container.relocatable or "object file" in container.detail:
        return None, "an object file has no addresses yet: its host code is not read"
    holes = [(payload.offset, payload.offset + payload.size) for payload in node.payloads]
    parts = container.sections or container.segments
    code, whole = _limited(_disjoint((part for part in parts if part.executable and part.address), holes))
    constant = [part for part in parts if not part.executable and not part.writable and part.address]
    if not container.sections and not constant:  # one segment holds code and constants
        constant = [part for part in parts if not part.writable]
    data, also = _limited(_disjoint((part for part in constant if not part.name.startswith(_NO_CONSTANTS)), holes))
    if not code:
        return None, "it has no executable section"
    mapped = (container.segments or container.sections)[:_MAX_MAPPED]
    fixed = node.container == ContainerKind.ELF and container.detail.startswith("x86-64 executable")
    return HostCode(node.source, node.container, code, data, mapped, whole and also, fixed), ""


def pieces(host: HostCode, parts: Iterable[Section]) -> Iterator[CodePiece]:
    """The bytes of ranges in pieces of about 1 MiB that overlap by a few bytes, so that no instruction is cut."""
    for part in parts:
        at = 0
        while at < part.size:
            data = host.source.peek(part.offset + at, min(CHUNK + 2 * _EDGE, part.size - at))
            if not data:
                break
            end = at + len(data) >= part.size
            last = len(data) if end else CHUNK + _EDGE
            yield CodePiece(part.address + at, part.offset + at, data, _EDGE if at else 0, last)
            if end:
                break
            at += CHUNK


class Texts:
    """C strings of the constants by load address; quickest when addresses are asked for in order."""

    def __init__(self, host: HostCode) -> None:
        self._source = host.source
        self._parts = sorted(host.data, key=lambda part: part.address)
        self._starts = [part.address for part in self._parts]
        self._at, self._window = 0, b""

    @property
    def span(self) -> tuple[int, int]:
        """The lowest address of any constant and the first above them all."""
        return self._starts[0] if self._parts else 0, max((part.address + part.size for part in self._parts), default=0)

    def at(self, address: int) -> bytes | None:
        """The string without its NUL; None when no constant is there or it does not end within 64 KiB."""
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._parts[index].address + self._parts[index].size:
            return None
        part = self._parts[index]
        offset = part.offset + address - part.address
        inside = offset - self._at
        end = self._window.find(b"\0", inside) if 0 <= inside < len(self._window) else -1
        if end < 0:
            self._at, self._window = offset, self._source.peek(offset, min(_MAX_TEXT, part.offset + part.size - offset))
            inside, end = 0, self._window.find(b"\0")
        return self._window[inside:end] if end >= 0 else None


def _disjoint(parts: Iterable[Section], holes: list[tuple[int, int]]) -> Iterator[Section]:
    """The ranges in file order, without what overlaps an earlier one or a hole."""
    at, taken = 0, sorted(holes)
    for part in sorted(parts, key=lambda part: part.offset):
        start, end = max(part.offset, at), part.offset + part.size
        at = max(at, end)
        index = max(bisect.bisect_right(taken, (start, 1 << 63)) - 1, 0)
        while start < end:
            while index < len(taken) and taken[index][1] <= start:
                index += 1
            begin, finish = taken[index] if index < len(taken) else (end, end)
            if begin > start:
                size = min(begin, end) - start
                yield part._replace(offset=start, address=part.address + start - part.offset, size=size)
            start = max(finish, start + 1) if begin < end else end


def _limited(parts: Iterable[Section]) -> tuple[tuple[Section, ...], bool]:
    kept: list[Section] = []
    room = SEARCH_LIMIT
    for part in parts:
        if part.size > room or len(kept) == _MAX_PARTS:
            return tuple(kept), False
        kept.append(part)
        room -= part.size
    return tuple(kept), True
