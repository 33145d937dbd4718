"""Payload sections written anew without gaps, and the bytes behind them moved up: what ELF and PE files have in common.

Every address stays what it was, but those of payloads; only places in the file change. So code, data, relocations, symbols and debug
information hold as they are, and a wrapper is the one thing that names a payload.
"""

from __future__ import annotations

import bisect
from collections.abc import Container, Iterator, Mapping, Sequence

from fatpatch.base.errors import EditError, UnsupportedError
from fatpatch.base.overlay import Overlay, Write
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.zip.read import find_directory
from fatpatch.edit.host.host import IN_PLACE, split_in_place
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.model.tree import Node

LEAVE = "leave out --compact: the freed bytes become zeros, which take no room where the file system knows holes"


class PlacedModule(NamedTuple):
    """A payload in a section written anew: its bytes, and where it starts and ends there."""

    new: NewPayload
    start: int
    end: int


class Cut(NamedTuple):
    """A section's bytes from ``start`` on (a file offset) become ``parts``; the file goes on with what is at ``resume`` now.

    ``removed`` bytes fewer lie before that.
    """

    start: int
    parts: tuple[Source, ...]
    resume: int
    removed: int


def refuse_zip_behind(host: Node) -> None:
    """UnsupportedError for a program with a zip archive behind it that would count from the wrong place."""
    directory = find_directory(host.content)
    if directory is not None and not directory.shift:
        message = "a zip archive lies behind the program, and counts its offsets from the start of the file"
        raise UnsupportedError(message, locator=host.locator, hint=LEAVE)


def others_in_place(host: Node, renewed: Sequence[NewPayload], inner: Container[int]) -> list[Write]:
    """The writes of those that lie in no section written anew (``inner``: offsets); EditError when one does not fit its place."""
    writes, outside = split_in_place(host, [new for new in renewed if new.payload.offset not in inner])
    if outside:
        message = "does not fit its place, and lies in a section that is not written anew"
        raise EditError(message, locator=outside[0].payload.locator, hint="leave out --compact")
    return writes


def tactics_of(renewed: Sequence[NewPayload], inner: Container[int]) -> dict[str, str]:
    """How each payload was put in, by its locator."""
    return {new.payload.locator: "packed together, the rest taken out" if new.payload.offset in inner else IN_PLACE for new in renewed}


def laid_out(host: Node, renewed: Mapping[int, NewPayload], start: int, size: int, alignment: int) -> tuple[list[PlacedModule], int]:
    """The payloads of the section [start, start + size), one after the other, and where the last ends.

    EditError when the section holds other things than payloads and zeros: they would be lost.
    """
    found: list[PlacedModule] = []
    at, end = start, 0
    for payload in sorted((each for each in host.payloads if start <= each.offset < start + size), key=lambda each: each.offset):
        if payload.offset < at:
            raise EditError("lies over another one", locator=payload.locator, offset=payload.offset)
        refuse_unnamed(host, at, payload.offset)
        new = renewed.get(payload.offset) or NewPayload(payload, (host.content.slice(payload.offset, payload.size),), (), alignment)
        place = end + -end % alignment
        found.append(PlacedModule(new, place, place + new.size))
        at, end = payload.offset + payload.size, place + new.size
    refuse_unnamed(host, at, start + size)
    return found, end


def refuse_unnamed(host: Node, start: int, end: int) -> None:
    """EditError when a range holds more than zeros."""
    if any(any(chunk) for chunk in host.content.chunks(start, end - start)):
        message = "holds bytes between its payloads that belong to none: nothing can be moved there"
        raise EditError(message, locator=host.locator, offset=start, hint=LEAVE)


def section_parts(placed_modules: Sequence[PlacedModule]) -> Iterator[Source]:
    """The bytes of a section, payloads and the zeros between them."""
    at = 0
    for each in placed_modules:
        yield Source.zeros(each.start - at)
        yield each.new.source()
        at = each.end


def shift(cuts: Sequence[Cut], offset: int) -> int:
    """Where the byte at an old file offset is now; a byte of a section written anew has no such place."""
    index = bisect.bisect_right([cut.resume for cut in cuts], offset)
    return offset - sum(cut.removed for cut in cuts[:index])


def inside_cut(cuts: Sequence[Cut], start: int, end: int) -> bool:
    """Whether any byte of [start, end) lies in a section that is written anew."""
    return any(start < cut.resume and cut.start < end for cut in cuts)


def compacted(source: Source, writes: Sequence[Write], cuts: Sequence[Cut], end: int) -> Overlay:
    """The file up to ``end`` with the writes done (at old offsets, none in a cut) and the cuts taken out."""
    patched = Overlay.of(source, writes).source()
    tail: list[Source] = []
    for cut, following in zip(cuts, (*cuts[1:], None), strict=True):
        length = sum(part.size for part in cut.parts)
        tail += [*cut.parts, Source.zeros(cut.resume - cut.removed - cut.start - length)]
        tail.append(patched.slice(cut.resume, (end if following is None else following.start) - cut.resume))
    first = cuts[0].start
    return Overlay.of(source, [write for write in writes if write.end <= first], tail, first)
