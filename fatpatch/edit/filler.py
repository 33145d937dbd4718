"""Images removed from a fatbin that must stay where it is: filler entries take their place, and it keeps its header and its size.

What finds such a fatbin is a table of its library's own, as in cuBLASLt, cuFFT, cuSPARSELt and cuDNN, not a wrapper. Drivers pass over
entries of kind 0 (reference: load rules, entry kinds); 137 operations of these four gave the same bits on an H200.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from fatpatch.base.overlay import Write
from fatpatch.base.source import Source
from fatpatch.edit.payload.entry import CODECS
from fatpatch.edit.payload.fatbin import EntryCopy
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.fatbin.read import CONTAINER
from fatpatch.model.kinds import HOSTS, ModuleKind
from fatpatch.model.tree import Node, Payload

_BLOCK = 4096


def stays_in_place(node: Node, payload: Payload) -> bool:
    """Whether a fatbin of a program is found by other means than a wrapper, so that its place is all that leads to it."""
    return payload.kind == ModuleKind.FATBIN and payload.wrapper is None and node.container in HOSTS


def filled(source: Source, payload: Payload, entries: Sequence[EntryCopy], kept: Collection[EntryCopy]) -> NewPayload:
    """The fatbin with a filler for each entry but those ``kept``, as it was measured."""
    parts = [source.slice(payload.offset, CONTAINER.size)]
    staying = frozenset(entry.offset for entry in kept)
    for entry in entries:
        parts += [source.slice(entry.offset, entry.size)] if entry.offset in staying else _filler(entry.size)
    return NewPayload(payload, tuple(parts), ())


def repacked(source: Source, payload: Payload, entries: Sequence[EntryCopy], made: Sequence[Source | None]) -> NewPayload | None:
    """The fatbin with its entries packed anew at their old offsets, each with a filler behind it; None when no block is freed.

    ``made``: the new entry of each, or None where the old one stays.
    """
    parts, changed = [source.slice(payload.offset, CONTAINER.size)], False
    for entry, new in zip(entries, made, strict=True):
        if new is None or entry.size - new.size < _BLOCK:
            parts.append(source.slice(entry.offset, entry.size))
            continue
        changed = True
        parts += [new, *_filler(entry.size - new.size)]
    return NewPayload(payload, tuple(parts), ()) if changed else None


def _filler(size: int) -> Iterator[Source]:
    """An entry of kind 0 of this size; all but its version and sizes is zero."""
    header = Header(n.KIND_FILLER, n.ENTRY_VERSION, HEADER.size, size - HEADER.size, *([0] * 10))
    yield Source.of(HEADER.pack(*header))
    yield Source.zeros(size - HEADER.size)


def without_codec(header: Header) -> Header:
    """An entry's header without its sizes and codec, which are compared with the contents."""
    return header._replace(payload_size=0, compressed_size=0, uncompressed_size=0, flags=header.flags & ~CODECS)


def hole_bytes(writes: Sequence[Write]) -> int:
    """Bytes of the file-system blocks that become holes when these are written: those that hold zeros alone."""
    empty = (write for write in writes if write.data.empty)
    return sum(max(write.end // _BLOCK - -(-write.offset // _BLOCK), 0) * _BLOCK for write in empty)


def filler_problems(source: Source, payload: Payload, entries: Sequence[EntryCopy], old: Collection[tuple[int, Header]]) -> Iterator[str]:
    """What is wrong with a fatbin that was emptied or repacked in place: fillers hold zeros alone, other entries are where they were.

    ``old``: the entries before, each by its distance from the fatbin's start, and its header but for what a codec changes.
    """
    for entry in entries:
        if entry.header.kind != n.KIND_FILLER:
            if (entry.offset - payload.offset, without_codec(entry.header)) not in old:
                yield f"{payload.locator}: the entry at {entry.offset:#x} was not there"
            continue
        start = entry.offset + HEADER.size
        if any(any(chunk) for chunk in source.chunks(start, entry.size - HEADER.size)):
            yield f"{payload.locator}: the filler at {entry.offset:#x} holds more than zeros"
