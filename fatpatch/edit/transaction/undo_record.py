"""What an edit replaced: enough to make the old file from the new one, and to recognise both.

Old bytes that are still somewhere in the new file (moved entries) are referred to, not stored, so a record stays small.
"""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Iterator

from fatpatch.base.overlay import Overlay, Write
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source

_HASHED = 1 << 30
SAMPLE = 1 << 16


class OldBytes(NamedTuple):
    """Old bytes: ``size`` at ``at`` of the old file, held as ``data`` or found at ``origin`` of the new file."""

    at: int
    size: int
    data: Source | None
    origin: int | None


class Edit(NamedTuple):
    """One edit: the sizes before and after, old bytes to put back, and (offset, size, crc32) samples of the new and the old file.

    ``sha256`` is that of the old file; None above 1 GiB, where reading it all would cost more than the edit.
    """

    old_size: int
    new_size: int
    kept: int
    pieces: tuple[OldBytes, ...]
    new_marks: tuple[tuple[int, int, int], ...]
    old_marks: tuple[tuple[int, int, int], ...]
    modified: int
    sha256: str | None


def edit_of(overlay: Overlay, modified: int, sha256: str | None) -> Edit:
    """The record of writing ``overlay`` over its base, which was last modified at ``modified`` (nanoseconds) and has a ``digest``."""
    base = overlay.base
    regions = [(write.offset, write.end) for write in overlay.writes]
    if overlay.kept < base.size:
        regions.append((overlay.kept, base.size))
    found = sorted(_carried(overlay))
    ends = [old + size for old, size, _ in found]
    pieces = tuple(piece for start, end in regions for piece in _pieces(base, start, end, found[bisect.bisect_right(ends, start) :]))
    new = overlay.source()
    new_marks = [_mark(new, write.offset, write.data.size) for write in overlay.writes]
    if overlay.tail:
        new_marks += [_mark(new, overlay.kept, overlay.size - overlay.kept), _mark(new, max(overlay.size - SAMPLE, 0), SAMPLE)]
    old_marks = [_mark(base, start, end - start) for start, end in regions] + [_mark(base, max(base.size - SAMPLE, 0), SAMPLE)]
    return Edit(base.size, overlay.size, overlay.kept, pieces, tuple(new_marks), tuple(old_marks), modified, sha256)


def digest(source: Source) -> str | None:
    """sha256 of a file; None above 1 GiB."""
    if source.size > _HASHED:
        return None
    result = hashlib.sha256()
    for chunk in source.chunks():
        result.update(chunk)
    return result.hexdigest()


def _carried(overlay: Overlay) -> Iterator[tuple[int, int, int]]:
    """(old offset, size, new offset) of old bytes that the new file holds at another place."""
    at = 0
    for part in overlay.source().flat():
        if part.shares(overlay.base) and part.base - overlay.base.base != at:
            yield part.base - overlay.base.base, part.size, at
        at += part.size


def _pieces(base: Source, start: int, end: int, found: list[tuple[int, int, int]]) -> Iterator[OldBytes]:
    """The old bytes [start, end): by reference where the new file has them, else by value; zeros and all."""
    at = start
    for old, size, new in found:
        if old >= end:
            break
        first, last = max(old, at), min(old + size, end)
        if first >= last:
            continue
        if first > at:
            yield OldBytes(at, first - at, base.slice(at, first - at), None)
        yield OldBytes(first, last - first, None, new + first - old)
        at = last
    if at < end:
        yield OldBytes(at, end - at, base.slice(at, end - at), None)


def _mark(source: Source, at: int, size: int) -> tuple[int, int, int]:
    size = min(size, SAMPLE, source.size - at)
    return at, size, zlib.crc32(source.read(at, size))


def is_at(source: Source, size: int, marks: tuple[tuple[int, int, int], ...]) -> bool:
    """Whether a file has a size and the sampled bytes."""
    return source.size == size and all(zlib.crc32(source.peek(at, length)) == crc for at, length, crc in marks)


def undone(source: Source, edit: Edit) -> Overlay:
    """The file before ``edit`` as an overlay over the file after it."""
    kept = min(edit.kept, source.size)
    data: dict[int, Source] = {}
    for piece in edit.pieces:
        if piece.data is not None:
            data[piece.at] = piece.data
        elif piece.origin is not None:
            data[piece.at] = source.slice(piece.origin, piece.size)
    writes = [Write(at, part) for at, part in data.items() if at < kept]
    tail = [part for at, part in sorted(data.items()) if at >= kept]
    return Overlay.of(source, writes, tail, kept)
