"""The file beside an edited one that holds its records, and what it says of the state that the file is in."""

from __future__ import annotations

import base64
import json
import os
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

from fatpatch.edits.record import SAMPLE, Edit, Piece, is_at
from fatpatch.errors import EditError, FatpatchError, FormatError
from fatpatch.source import Source
from fatpatch.writing import write_file

SUFFIX = ".fatpatch-undo"
SCHEMA = "fatpatch.undo/1"
_MAX_RECORD = 1 << 30
_MAX_RATIO = 1032


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


class Standing(NamedTuple):
    """Which recorded edits a file really carries, and the append that was cut off on the way to the next, if one was."""

    done: tuple[Edit, ...]
    cut_off: Edit | None


def standing(source: Source, edits: tuple[Edit, ...], locator: str) -> Standing:
    """Where a file stands: an edit may have been recorded and never begun, or cut off.

    EditError when the file is in none of the recorded states.
    """
    for count in range(len(edits), -1, -1):
        after = count > 0 and is_at(source, edits[count - 1].new_size, edits[count - 1].new_marks)
        before = count < len(edits) and is_at(source, edits[count].old_size, edits[count].old_marks)
        if after or before or not edits:
            return Standing(edits[:count], None)
    last = edits[-1]
    appended = not last.pieces and last.kept == last.old_size < source.size <= last.new_size
    if appended and is_at(source.slice(0, last.old_size), last.old_size, last.old_marks):
        return Standing(edits[:-1], last)
    hint = f"if the change is wanted, remove {os.path.basename(path_beside(locator))}: it is of no use any more"
    raise EditError("was changed after the edit that its record describes", locator=locator, hint=hint)


def refuse_cut_off(source: Source, edits: tuple[Edit, ...], locator: str) -> tuple[Edit, ...]:
    """The edits that a file carries; EditError when the last append was cut off."""
    found = standing(source, edits, locator)
    if found.cut_off is not None:
        rest = source.size - found.cut_off.old_size
        message = f"carries an append that was cut off; its content is still the old one, with {rest} bytes behind it"
        raise EditError(message, locator=locator, hint="'fatpatch undo' takes those off")
    return found.done


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
        if any(at < 0 or not 0 <= size <= SAMPLE for at, size, _ in found):
            raise ValueError(f"{name} outside a file")
        return found

    sha256 = None if item["sha256"] is None else str(item["sha256"])
    return Edit(old_size, new_size, kept, tuple(pieces), marks("new_marks"), marks("old_marks"), int(item["modified"]), sha256)
