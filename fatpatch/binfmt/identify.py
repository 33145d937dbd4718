"""What container a file is: the first reader that knows it, in the order of the registry."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import CONTAINER_FORMATS, ContainerKind
from fatpatch.model.tree import Container

_MACHO_MAGICS = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe", b"\xfe\xed\xfa\xcf", b"\xfe\xed\xfa\xce")
_UNIVERSAL, _MAX_MACHINES = b"\xca\xfe\xba\xbe", 30  # a class file has its version there, 45 and more
_TAIL = (1 << 16) + (1 << 12)
_WITH_ZIP_TAIL = frozenset(row.kind for row in CONTAINER_FORMATS if row.zip_tail)


class ContainerReader(Protocol):
    """What a module of fatpatch.binfmt offers."""

    KIND: str

    def probe(self, source: Source) -> bool:
        """Whether the source is of this kind."""

    def read(self, source: Source, locator: str, diagnostics: Diagnostics) -> Container:
        """Its ranges and members."""


def identify(source: Source, locator: str, diagnostics: Diagnostics, kind: ContainerKind | None = None) -> Container:
    """The container of a source, by the first reader that knows it, or by the one that ``kind`` names; else raw bytes."""
    container = _read_known(source, locator, diagnostics, kind)
    if container.kind in _WITH_ZIP_TAIL and not container.members and n.ZIP_END_MAGIC in source.peek(max(source.size - _TAIL, 0), _TAIL):
        from fatpatch.binfmt.zip import read as zip_reader

        if (directory := zip_reader.find_directory(source)) is not None:
            container = container._replace(members=zip_reader.read_members(source, directory, locator, diagnostics))
    return container


def _read_known(source: Source, locator: str, diagnostics: Diagnostics, kind: ContainerKind | None) -> Container:
    for row in CONTAINER_FORMATS:
        if not row.reader or kind not in (None, row.kind):
            continue  # a reader is imported only when those before it have declined
        reader = cast(ContainerReader, import_module(f"fatpatch.binfmt.{row.reader}"))
        if kind is not None or reader.probe(source):
            return reader.read(source, locator, diagnostics)
    if kind is None:
        from fatpatch.binfmt.pe import read as pe

        if pe.probe_object(source):
            return pe.read(source, locator, diagnostics)
    return Container(kind=kind or (ContainerKind.MACHO if _is_macho(source.peek(0, 8)) else ContainerKind.RAW))


def _is_macho(head: bytes) -> bool:
    """Whether a Mach-O file starts so. A Java class shares the magic of universal files; its version is above any number of machines."""
    if head[:4] == _UNIVERSAL:
        return 0 < int.from_bytes(head[4:8], "big") <= _MAX_MACHINES
    return head[:4] in _MACHO_MAGICS
