"""The file beside an edited one that holds its records, and what it says of the state that the file is in.

A JSON document; behind it, raw, the longer runs of old bytes that the edited file does not hold any more.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Iterator
from typing import Any

from fatpatch.base.errors import EditError, FatpatchError, FormatError, InputError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.base.writing import write_file
from fatpatch.edit.transaction.undo_record import SAMPLE, Edit, OldBytes, is_at

SUFFIX = ".fatpatch-undo"
SCHEMA = "fatpatch.undo/1"
_MAX_RECORD = 1 << 28
_MAX_EDITS = 100
_MAX_BYTES = 1 << 28
_MAX_RATIO = 1032
_INLINE = 1 << 12
_END = b"\n}\n"  # of the document: no string of it holds a line break
_SMALL = 1 << 9


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
        end = source.find(_END, 0, source.size)
        size = source.size if end < 0 else end + len(_END)
        if size > _MAX_RECORD:
            raise FormatError(f"has a document of {size:#x} bytes: not a record of fatpatch", locator=beside)
        document = json.loads(source.read(0, size))
        held = source.slice(size, source.size - size)
        if document["schema"] != SCHEMA:
            raise FormatError(f"expected {SCHEMA}, got {str(document['schema'])[:80]}", locator=beside)
        if len(document["edits"]) > _MAX_EDITS:
            raise FormatError(f"has {len(document['edits'])} edits, more than {_MAX_EDITS}", locator=beside)
        return tuple(_decoded(item, held) for item in document["edits"])
    except FatpatchError:
        raise
    except (ValueError, KeyError, TypeError, ArithmeticError, AttributeError, MemoryError, zlib.error, RecursionError) as error:
        raise FormatError(f"is not a whole record: {error}", locator=beside) from error


def save(path: str, edits: tuple[Edit, ...]) -> None:
    """Write the record beside ``path``, or remove it when nothing is left to undo."""
    beside = path_beside(path)
    if not edits:
        try:
            os.unlink(beside)
        except FileNotFoundError:
            pass
        except OSError as error:
            hint = "the file itself is as wanted; remove the record by hand"
            raise InputError(f"cannot remove it: {error.strerror}", locator=beside, hint=hint) from error
        return
    held = _Held()
    document = {"schema": SCHEMA, "edits": [_encoded(edit, held) for edit in edits]}
    write_file(beside, _written(document, held), replace=True)


class _Held:
    """The old bytes that go behind the document."""

    def __init__(self) -> None:
        self.parts: list[Source] = []
        self.size = 0

    def add(self, part: Source) -> int:
        """Where it will be, from the end of the document on."""
        self.parts.append(part)
        self.size += part.size
        return self.size - part.size


def _written(document: dict[str, Any], held: _Held) -> Iterator[bytes]:
    yield json.dumps(document).encode().removesuffix(b"}") + _END  # indents would be written twenty times slower
    for part in held.parts:
        yield from part.chunks()


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


def _encoded(edit: Edit, held: _Held) -> dict[str, Any]:
    """One edit for the document; what is too long for it is added to ``held``."""
    return edit._asdict() | {"pieces": [{"at": piece.at, "size": piece.size} | _bytes_of(piece, held) for piece in edit.pieces]}


def _bytes_of(piece: OldBytes, held: _Held) -> dict[str, Any]:
    if piece.data is None:
        return {"origin": piece.origin}
    if piece.size > _INLINE:
        return {"held": held.add(piece.data)}
    return {"data": base64.b64encode(_packed(piece.data.read(0, piece.size))).decode()}


def _packed(data: bytes) -> bytes:
    """The bytes as a zlib stream; of few of them with a small window, since an edit has hundreds and a large one takes time to set up."""
    made = zlib.compressobj(wbits=9, memLevel=1) if len(data) < _SMALL else zlib.compressobj()
    return made.compress(data) + made.flush()


def _decoded(item: dict[str, Any], outside: Source) -> Edit:
    """One edit, its numbers checked: they decide what is read and written. ValueError when they cannot be ours."""
    old_size, new_size, kept = int(item["old_size"]), int(item["new_size"]), int(item["kept"])
    if not 0 <= kept <= min(old_size, new_size):
        raise ValueError(f"{kept} bytes kept of {old_size} and {new_size}")
    if not 0 <= int(item["modified"]) < 1 << 63:
        raise ValueError("a time that no file can have")
    pieces, end, held = [], 0, 0
    for each in item["pieces"]:
        at, size = int(each["at"]), int(each["size"])
        if at < end or size < 0 or at + size > old_size or at < kept < at + size:
            raise ValueError(f"old bytes at {at} overlap, or lie outside the file")
        end = at + size
        held += 0 if "origin" in each else size
        if held > _MAX_BYTES + outside.size:
            raise ValueError(f"holds more than {_MAX_BYTES} bytes")
        pieces.append(_piece(each, at, size, new_size, outside))
    if old_size > new_size + held:  # what the new file does not hold must be here
        raise ValueError(f"{old_size} bytes cannot come from {new_size} and {held}")
    sha256 = None if item["sha256"] is None else str(item["sha256"])
    marks = _marks(item["new_marks"]), _marks(item["old_marks"])
    return Edit(old_size, new_size, kept, tuple(pieces), *marks, int(item["modified"]), sha256)


def _piece(item: dict[str, Any], at: int, size: int, new_size: int, outside: Source) -> OldBytes:
    if "held" in item:
        start = int(item["held"])
        if not 0 <= start <= outside.size - size:
            raise ValueError(f"old bytes said to be {start} bytes behind the document, which {outside.size} follow")
        return OldBytes(at, size, outside.slice(start, size), None)
    if "data" not in item:
        origin = int(item["origin"])
        if not 0 <= origin <= new_size - size:
            raise ValueError(f"old bytes said to be at {origin} of the new file")
        return OldBytes(at, size, None, origin)
    packed = base64.b64decode(item["data"], validate=True)
    if size > len(packed) * _MAX_RATIO:
        raise ValueError(f"{len(packed)} bytes cannot unpack to {size}")
    data = zlib.decompressobj().decompress(packed, size + 1)
    if len(data) != size:
        raise ValueError(f"expected {size} bytes, got {len(data)}")
    return OldBytes(at, size, Source.of(data), None)


def _marks(rows: Any) -> tuple[tuple[int, int, int], ...]:
    found = tuple((int(at), int(size), int(crc)) for at, size, crc in rows)
    if any(at < 0 or not 0 <= size <= SAMPLE for at, size, _ in found):
        raise ValueError("a sample outside a file")
    return found
