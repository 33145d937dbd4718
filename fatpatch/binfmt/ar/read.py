"""Ar archives: Unix .a (GNU and BSD long names) and Windows .lib (reference: ar(5), PE/COFF archive format)."""

from __future__ import annotations

from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Container, Member

KIND = ContainerKind.AR
HEADER_SIZE = 60
_MAX_MEMBERS = 200_000
_MAX_NAME = 4096
_INDEXES = {"/", "/SYM64/", "__.SYMDEF", "__.SYMDEF SORTED"}


def probe(source: Source) -> bool:
    """Whether the source starts with ``!<arch>``."""
    return source.peek(0, 8) == n.AR_MAGIC


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """All members but the symbol indexes and the long-name table."""
    members: list[Member] = []
    at, long_names = 8, _LongNames(b"")
    while header := source.peek(at, HEADER_SIZE):
        size_text = header[48:58].strip()
        if len(header) < HEADER_SIZE or header[58:60] != b"`\n" or not size_text.isdigit():
            diagnostics.error(locator, at, "expected a member header that ends in 600a", field="member header")
            break
        if len(members) >= _MAX_MEMBERS:
            diagnostics.error(locator, at, f"more than {_MAX_MEMBERS} members: the rest is left out", field="member header")
            break
        size, data = int(size_text), at + HEADER_SIZE
        if data + size > source.size:
            diagnostics.error(locator, at + 48, f"a member ends at {data + size:#x}, the archive at {source.size:#x}", field="size")
            break
        raw = header[:16].rstrip(b" ")
        if raw == b"//":
            long_names = _LongNames(source.peek(data, min(size, 1 << 24)))
        else:
            name, skipped = _name(source, raw, data, size, long_names)
            if name not in _INDEXES:
                members.append(Member(name=name, offset=data + skipped, stored_size=size - skipped, size=size - skipped, header_offset=at))
        at = data + size + (size & 1)
    return Container(kind=KIND, members=tuple(members))


class _LongNames:
    """The ``//`` member; each name is decoded once, however many members share it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._known: dict[int, str] = {}

    def at(self, start: int) -> str:
        if start not in self._known:
            raw = self._data[start : start + _MAX_NAME].split(b"\0", 1)[0].split(b"\n", 1)[0]
            self._known[start] = raw.removesuffix(b"/").decode("utf-8", "backslashreplace")
        return self._known[start]


def _name(source: Source, raw: bytes, data: int, size: int, long_names: _LongNames) -> tuple[str, int]:
    """The member's name, and how many bytes of its data it takes (BSD)."""
    if raw.startswith(b"#1/") and raw[3:].isdigit():
        length = min(int(raw[3:]), size, _MAX_NAME)
        return source.peek(data, length).rstrip(b"\0").decode("utf-8", "backslashreplace"), length
    if raw[:1] == b"/" and raw[1:].isdigit():
        return long_names.at(int(raw[1:])), 0
    if len(raw) > 1 and raw.endswith(b"/") and raw != b"/SYM64/":
        raw = raw[:-1]
    return raw.decode("utf-8", "backslashreplace"), 0
