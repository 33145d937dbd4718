"""What a file would weigh: a table a place for people, and the document of schema fatpatch.what-if/1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fatpatch import __version__
from fatpatch.coverage import holders, target_key
from fatpatch.gpus.drivers import first_zstd_driver
from fatpatch.model import Diagnostic, Node
from fatpatch.render.words import columns, plural, safe, size
from fatpatch.what_if import Plan, Row, Saving

SCHEMA = "fatpatch.what-if/1"
_LINKED = frozenset({"elf", "pe", "ape"})


def text(node: Node, found: Sequence[Saving], wish: Plan) -> Iterator[str]:
    """The sum and what it means first, then each place."""
    if not found:
        yield f"{safe(node.path)}: no GPU code"
        return
    stored, then = (sum(getattr(each, field) for each in found) for field in ("stored", "then"))
    yield f"{safe(node.path)}: GPU code {size(stored)} -> {size(then)}, {_saved(stored, then)}"
    yield f"  {_words(wish)}"
    yield from (f"  {note}" for note in _notes(node, wish))
    if len(found) > 1:
        yield ""
        yield from _table("all together", [row for each in found for row in each.rows])
    for each in found:
        yield ""
        yield from _table(safe(each.place), each.rows)
        if each.shared:
            yield "  images share compressed blobs: a row is the target's share of them"
        if each.kept:
            yield f"  {plural(each.kept, 'payload')} of a kind that cannot be compressed so: left as it is"


def _table(title: str, rows: Sequence[Row]) -> Iterator[str]:
    """One row a target, and their sum."""
    targets: dict[str, list[Row]] = {}
    for row in rows:
        targets.setdefault(row.target, []).append(row)
    lines = [_line(target, targets[target]) for target in sorted(targets, key=target_key)]
    yield title
    yield from (f"  {line}" for line in columns(("target", "images", "stored", "then", "saved", ""), [*lines, _line("total", rows)]))


def _line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    images, stored, then = (sum(getattr(row, field) for row in rows) for field in ("images", "stored", "then"))
    dropped = all(row.dropped for row in rows)
    saved = size(stored - then) if stored >= then else f"-{size(then - stored)}"
    return name, str(images), size(stored), "-" if dropped else size(then), saved, "dropped" if dropped else _percent(stored, then)


def _notes(node: Node, wish: Plan) -> Iterator[str]:
    there = holders(node)
    if wish.codec == "zstd" and any(payload.vendor == "nvidia" for each in there for payload in each.payloads):
        linux, windows = first_zstd_driver()
        yield f"zstd in fatbins needs driver {linux} ({windows} on Windows) or newer."
    if any(each is not node and each.stored_at is None for each in there):
        yield "Members of this archive are compressed already: what the archive itself would lose is less."
    if any(each.container in _LINKED for each in there):
        yield "A linked library keeps its size until it is linked again, or its code is written anew."


def _words(wish: Plan) -> str:
    parts = [f"without {', '.join(wish.drop)}"] if wish.drop else []
    if wish.codec is not None:
        level = f"-{wish.level}" if wish.level else ""
        parts.append("nothing compressed" if wish.codec == "none" else f"compressed with {wish.codec}{level}")
    return ", ".join(parts)


def _saved(stored: int, then: int) -> str:
    return f"saves {size(stored - then)} ({_percent(stored, then)})" if then <= stored else f"takes {size(then - stored)} more"


def _percent(stored: int, then: int) -> str:
    return f"{100 * (stored - then) / stored:.1f}%" if stored else "-"


def document(files: Sequence[dict[str, Any]], wish: Plan) -> dict[str, Any]:
    """The document of schema fatpatch.what-if/1."""
    asked = {"drop": list(wish.drop), "compress": wish.codec, "level": wish.level}
    return {"schema": SCHEMA, "tool_version": __version__, "plan": asked, "files": list(files)}


def file_json(node: Node, found: Sequence[Saving], diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """One file's object."""
    return {
        "path": node.path,
        "stored": sum(each.stored for each in found),
        "then": sum(each.then for each in found),
        "places": [
            {
                "locator": each.place,
                "stored": each.stored,
                "then": each.then,
                "shared_blobs": each.shared,
                "payloads_kept": each.kept,
                "targets": [row._asdict() for row in each.rows],
            }
            for each in found
        ],
        "diagnostics": [item._asdict() for item in diagnostics],
    }
