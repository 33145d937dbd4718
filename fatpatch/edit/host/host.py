"""What editing a host file needs and gives, whatever its format."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.overlay import Overlay, Write
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.gpucode.locate import PAYLOAD_SECTIONS
from fatpatch.model.tree import Node, Payload

IN_PLACE = "in place"


class Options(NamedTuple):
    """What the user allows or asks for. ``compact``: files shrink by what is no longer needed.

    ``rebuild``: an archive whose members do not fit their places is written anew, not appended to.
    """

    cuobjdump: bool = False
    drop_signature: bool = False
    compact: bool = False
    rebuild: bool = False


class HostEdit(NamedTuple):
    """The file as it will be; by payload locator the placement in words; by old offset the new one of each payload that moved.

    ``notes`` are what the user should know; ``compacted``: bytes were taken out of the middle of the file.
    """

    overlay: Overlay
    placements: Mapping[str, str]
    moves: Mapping[int, int]
    notes: tuple[str, ...] = ()
    compacted: bool = False


def split_in_place(host: Node, renewed: Sequence[NewPayload]) -> tuple[list[Write], list[NewPayload]]:
    """The writes of those payloads that fit where the old ones are, and those that do not fit.

    What is left of the old place becomes zeros behind the container, which drivers and tools skip; zeros inside one would hang a driver.
    """
    writes, moved = [], []
    starts = sorted(payload.offset for payload in host.payloads)
    for new in renewed:
        room = _room(host, new.payload, starts)
        if new.size <= room:
            writes += _differing(host.content, new)
            if new.size < new.payload.size:
                writes.append(Write(new.payload.offset + new.size, Source.zeros(new.payload.size - new.size)))
        else:
            moved.append(new)
    return writes, moved


def _differing(base: Source, new: NewPayload) -> list[Write]:
    """The writes of a payload where the old one is; none of the parts that are there already, and zeros apart: they become holes."""
    writes, together = list[Write](), list[Source]()
    at = start = new.payload.offset
    for part in new.source().flat():
        there = part.shares(base) and part.base - base.base == at
        if there or part.empty:
            writes += [Write(start, Source.joined(together))] if together else []
            writes += [] if there else [Write(at, part)]
            together, start = [], at + part.size
        else:
            together.append(part)
        at += part.size
    return [*writes, Write(start, Source.joined(together))] if together else writes


def shrunk_in_place(renewed: Sequence[NewPayload], moved: Sequence[NewPayload]) -> list[int]:
    """The offsets of payloads that stay where they are and become shorter, so that what lies inside them is somewhere else."""
    away = {new.payload.offset for new in moved}
    return [new.payload.offset for new in renewed if new.payload.offset not in away and new.size < new.payload.size]


def _room(host: Node, payload: Payload, starts: Sequence[int]) -> int:
    """Bytes from the fatbin's start to the next thing in its section: its own size, and zero padding behind it."""
    end = payload.offset + payload.size
    section = next((part for part in host.layout.sections if part.offset <= payload.offset < part.offset + part.size), None)
    if section is None or section.name not in PAYLOAD_SECTIONS:
        return payload.size  # zeros behind it may be a variable
    following = bisect.bisect_left(starts, end)
    limit = min([section.offset + section.size, *starts[following : following + 1]])
    gap = host.content.peek(end, min(limit - end, 1 << 16))
    return payload.size + len(gap) - len(gap.lstrip(b"\0"))


def refuse_foreign(host: Node, offsets: Iterable[int]) -> None:
    """EditError when a payload section holds other bytes right before one of these payloads: code may read both as one structure."""
    for offset in offsets:
        section = next((part for part in host.layout.sections if part.offset <= offset < part.offset + part.size), None)
        if section is None or section.name not in PAYLOAD_SECTIONS:
            continue
        ends = (each.offset + each.size for each in host.payloads if each.offset < offset)
        start = max(section.offset, max(ends, default=0))
        if any(any(chunk) for chunk in host.content.chunks(start, offset - start)):
            message = f"{offset - start:,} bytes that belong to no payload lie right before it, and code may read both as one structure"
            raise EditError(message, locator=host.locator, offset=start, hint="give an image that fits in place, or edit another module")


def freed_ranges(renewed: Sequence[NewPayload]) -> list[Write]:
    """Zeros over the old places of fatbins that moved: no dead copies for tools to list, and zeros between fatbins disturb none."""
    return [Write(new.payload.offset, Source.zeros(new.payload.size)) for new in renewed]
