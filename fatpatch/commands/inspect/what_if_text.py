"""What prune and recompress would save: the table of their dry run, and the document of schema fatpatch.what-if/2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fatpatch import __version__
from fatpatch.api.savings import Saving, WhatIf, estimate_line, lost_line, target_table
from fatpatch.base.words import safe, size
from fatpatch.model.kinds import Codec

SCHEMA = "fatpatch.what-if/2"


def text(shown: str, found: Saving | None, request: WhatIf) -> Iterator[str]:
    """The sum first, then the table that the dry run of the edit prints, then what to know of it."""
    if found is None:
        yield f"{safe(shown)}: no GPU code"
        return
    stored, then = found.stored, found.stored_then
    change = f"saves {size(stored - then)}" if then <= stored else f"takes {size(then - stored)} more"
    yield f"{safe(shown)}: GPU code {size(stored)} -> {size(then)}, {change}      ({_words(request)})"
    yield ""
    yield from target_table(found.rows)
    yield ""
    yield from estimate_line(found.rows, found.estimate)
    yield from lost_line(found.lost)
    for note in found.notes:
        yield f"note: {safe(note)}"


def _words(request: WhatIf) -> str:
    parts = [f"without {', '.join(request.drop)}"] if request.drop else []
    if request.codec is not None:
        level = f"-{request.level}" if request.level else ""
        parts.append("nothing compressed" if request.codec == Codec.NONE else f"compressed with {request.codec}{level}")
    return safe(", ".join(parts))


def document(files: Sequence[dict[str, Any]], request: WhatIf) -> dict[str, Any]:
    """The document of schema fatpatch.what-if/2."""
    asked = {"drop": list(request.drop), "compress": request.codec, "level": request.level}
    return {"schema": SCHEMA, "tool_version": __version__, "plan": asked, "files": list(files)}


def file_json(shown: str, found: Saving | None) -> dict[str, Any]:
    """One file's object; its targets are those of fatpatch.edit/1."""
    if found is None:
        return {"path": shown, "stored": 0, "stored_then": 0, "targets": [], "lost": [], "notes": [], "estimate": None}
    return {
        "path": shown,
        "stored": found.stored,
        "stored_then": found.stored_then,
        "targets": [row._asdict() for row in found.rows],
        "lost": list(found.lost),
        "notes": list(found.notes),
        "estimate": None if found.estimate is None else found.estimate._asdict(),
    }
