"""The record beside an edited file: what its old bytes were, edit by edit, so that ``undo`` gives the very original back.

Old bytes that are still somewhere in the new file (moved entries) are referred to, not stored, so the record stays small.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from fatpatch.edits.overlay import Overlay, Write
from fatpatch.errors import EditError, FatpatchError, FormatError
from fatpatch.source import Source
from fatpatch.writing import write_file

SUFFIX = ".fatpatch-undo"
SCHEMA = "fatpatch.undo/1"
_MAX_RECORD = 1 << 30
_HASHED = 1 << 30
_SAMPLE = 1 << 16
_MAX_RATIO = 1032


class Piece(NamedTuple):
    """Old bytes: ``size`` at ``at`` of the old file, held as ``data`` or found at ``origin`` of the new file."""

    at: int
    size: int
    data: bytes | None
    origin: int | None


class Edit(NamedTuple):
    """One edit: the sizes before and after, old bytes to put back, and (offset, size, crc32) samples of the new and the old file.

    ``sha256`` is that of the old file; None above 1 GiB, where reading it all would cost more than the edit.
    """

    old_size: int
    new_size: int
    kept: int
    pieces: tuple[Piece, ...]
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
    found = list(_carried(overlay))
    pieces = tuple(piece for start, end in regions for piece in _pieces(base, start, end, found))
    new = overlay.source()
    new_marks = [_mark(new, write.offset, write.data.size) for write in overlay.writes]
    if overlay.tail:
        new_marks += [_mark(new, overlay.kept, overlay.size - overlay.kept), _mark(new, max(overlay.size - _SAMPLE, 0), _SAMPLE)]
    old_marks = [_mark(base, start, end - start) for start, end in regions] + [_mark(base, max(base.size - _SAMPLE, 0), _SAMPLE)]
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


def _pieces(base: Source, start: int, end: int, found: list[tuple[int, int, int]]) -> Iterator[Piece]:
    """The old bytes [start, end): by reference where the new file has them, else by value; zeros and all."""
    at = start
    for old, size, new in sorted(found):
        first, last = max(old, at), min(old + size, end)
        if first >= last:
            continue
        if first > at:
            yield Piece(at, first - at, base.read(at, first - at), None)
        yield Piece(first, last - first, None, new + first - old)
        at = last
    if at < end:
        yield Piece(at, end - at, base.read(at, end - at), None)


def _mark(source: Source, at: int, size: int) -> tuple[int, int, int]:
    size = min(size, _SAMPLE, source.size - at)
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
            data[piece.at] = Source.of(piece.data)
        elif piece.origin is not None:
            data[piece.at] = source.slice(piece.origin, piece.size)
    writes = [Write(at, part) for at, part in data.items() if at < kept]
    tail = [part for at, part in sorted(data.items()) if at >= kept]
    return Overlay.of(source, writes, tail, kept)


def path_beside(path: str) -> str:
    """Where the record of a file is kept."""
    return path + SUFFIX


def load(path: str) -> tuple[Edit, ...]:
    """The edits recorded beside ``path``, the first first; none when there is no record. FormatError when it is damaged."""
    beside = path_beside(path)
    if not os.path.lexists(beside):
        return ()
    source = Source.open(beside)
    try:
        if source.size > _MAX_RECORD:
            raise FormatError(f"has {source.size:#x} bytes: not a record of fatpatch", locator=beside)
        document = json.loads(source.read(0, source.size))
        if document["schema"] != SCHEMA:
            raise FormatError(f"expected {SCHEMA}, got {str(document['schema'])[:80]}", locator=beside)
        return tuple(_decoded(item) for item in document["edits"])
    except FatpatchError:
        raise
    except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, MemoryError, zlib.error, RecursionError) as error:
        raise FormatError(f"is not a whole record: {error}", locator=beside) from error
    finally:
        source.close()


def save(path: str, edits: tuple[Edit, ...]) -> None:
    """Write the record beside ``path``, or remove it when nothing is left to undo."""
    beside = path_beside(path)
    if not edits:
        with suppress(FileNotFoundError):
            os.unlink(beside)
        return
    document = {"schema": SCHEMA, "edits": [_encoded(edit) for edit in edits]}
    write_file(beside, [json.dumps(document, indent=1).encode(), b"\n"], replace=True)


def current(source: Source, edits: tuple[Edit, ...], locator: str) -> tuple[Edit, ...]:
    """The edits that the file really carries: one that was recorded but not finished is dropped.

    EditError when the file is in none of the recorded states.
    """
    for count in range(len(edits), -1, -1):
        if count and is_at(source, edits[count - 1].new_size, edits[count - 1].new_marks):
            return edits[:count]
        if count < len(edits) and is_at(source, edits[count].old_size, edits[count].old_marks):
            return edits[:count]
    if not edits:
        return ()
    if unfinished(source, edits) is not None:
        message = (
            f"carries an append that was cut off; its content is still the old one, with {source.size - edits[-1].old_size} bytes behind it"
        )
        raise EditError(message, locator=locator, hint="'fatpatch undo' takes those off")
    raise EditError(
        "is not as the record beside it says: it was changed since", locator=locator, hint=f"remove the {SUFFIX} file if it is of no use"
    )


def unfinished(source: Source, edits: tuple[Edit, ...]) -> Edit | None:
    """The last edit when it is an append that was cut off: the old bytes are all there, and some of the new ones."""
    if not edits:
        return None
    last = edits[-1]
    grown = not last.pieces and last.kept == last.old_size < source.size < last.new_size
    return last if grown and is_at(source.slice(0, last.old_size), last.old_size, last.old_marks) else None


def _encoded(edit: Edit) -> dict[str, Any]:
    pieces = [
        {"at": piece.at, "size": piece.size}
        | ({"origin": piece.origin} if piece.data is None else {"data": base64.b64encode(zlib.compress(piece.data)).decode()})
        for piece in edit.pieces
    ]
    return edit._asdict() | {"pieces": pieces}


def _decoded(item: dict[str, Any]) -> Edit:
    old_size, new_size, kept = int(item["old_size"]), int(item["new_size"]), int(item["kept"])
    if not 0 <= kept <= min(old_size, new_size):
        raise ValueError(f"{kept} bytes kept of {old_size} and {new_size}")
    if not 0 <= int(item["modified"]) < 1 << 63:
        raise ValueError("a time that no file can have")
    pieces, end = [], 0
    for piece in item["pieces"]:
        at, size, data = int(piece["at"]), int(piece["size"]), None
        if at < end or size < 0 or at + size > old_size:
            raise ValueError(f"old bytes at {at} overlap, or lie outside the file")
        end = at + size
        if "data" in piece:
            packed = base64.b64decode(piece["data"], validate=True)
            if size > len(packed) * _MAX_RATIO:
                raise ValueError(f"{len(packed)} bytes cannot unpack to {size}")
            data = zlib.decompressobj().decompress(packed, size + 1)
            if len(data) != size:
                raise ValueError(f"expected {size} bytes, got {len(data)}")
        if data is None and not 0 <= int(piece["origin"]) <= new_size - size:
            raise ValueError(f"old bytes said to be at {piece['origin']} of the new file")
        pieces.append(Piece(at, size, data, None if data is not None else int(piece["origin"])))

    def marks(name: str) -> tuple[tuple[int, int, int], ...]:
        found = tuple((int(at), int(size), int(crc)) for at, size, crc in item[name])
        if any(at < 0 or not 0 <= size <= _SAMPLE for at, size, _ in found):
            raise ValueError(f"{name} outside a file")
        return found

    sha256 = None if item["sha256"] is None else str(item["sha256"])
    return Edit(old_size, new_size, kept, tuple(pieces), marks("new_marks"), marks("old_marks"), int(item["modified"]), sha256)
