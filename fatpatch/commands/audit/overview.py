"""The page about an index: whom its files serve, which files fail where, what they hold twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fatpatch.api.audit import Overview, not_of_an_audit, overview
from fatpatch.api.contents import Answer, outcome_words
from fatpatch.api.gpus import by_target, family, series, well_known
from fatpatch.base.words import plural, safe, size
from fatpatch.commands._shared.page import grade, page

_MOST_ROWS = 100


def overview_page(path: str) -> str:
    """The text of the page; FormatError for an index with values that no audit writes."""
    try:
        return _page(overview(path))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise not_of_an_audit(error, path) from error


def _page(found: Overview) -> str:
    gpus = list(_gpus(found))
    files = _files(found, [row["target"] for row in gpus])
    unread, parts = found.counts["files not read"], found.counts["parts not read"]
    return page(
        "overview.html.j2",
        title=f"{plural(found.counts['files'], 'indexed file')}",
        parts=[("summary", "Summary"), ("gpus", "GPUs"), ("duplicates", "Duplicates"), ("errors", "Not read")],
        explored=[files] if files["kernels"] else [],
        mode="files",
        facts=[
            *((word, f"{count:,}") for word, count in found.counts.items()),
            *((word, size(count)) for word, count in found.sizes.items()),
        ],
        gpus=gpus,
        duplicates=[_duplicate(row) for row in found.duplicates],
        errors=[{"file": safe(row[0]), "place": safe(row[1]), "message": safe(row[2])} for row in found.errors[:_MOST_ROWS]],
        error_count=len(found.errors),
        error_words=f"{plural(unread, 'file')} and {plural(parts, 'part')} of files",
    )


def _gpus(found: Overview) -> Iterator[dict[str, Any]]:
    """For each target how many files run, and how the others fare."""
    for target, devices in by_target().items():
        if (rows := found.gpus.get(target)) is None:
            continue
        names = well_known(devices)
        total = sum(count for _, _, count in rows)
        running = sum(count for _, works, count in rows if works)
        yield {
            "target": target,
            "generation": ", ".join(filter(None, (family(target), series(names)))),
            "products": len(names),
            "running": f"{running:,} of {total:,}",
            "share": round(100 * running / total),
            "others": ", ".join(f"{count} {outcome_words(outcome)}" for outcome, works, count in sorted(rows) if not works),
        }


def _files(found: Overview, targets: list[str]) -> dict[str, Any]:
    """Files by GPU target: a cell is the number of an outcome."""
    place = {target: column for column, target in enumerate(targets)}
    outcomes: dict[tuple[str, bool], int] = {}
    table: dict[str, list[int | None]] = {}
    for file, gpu, outcome, works in found.files:
        if gpu in place:
            cells = table.setdefault(safe(file), [None] * len(targets))
            cells[place[gpu]] = outcomes.setdefault((outcome, works), len(outcomes))
    words = [[outcome_words(outcome), grade(Answer(outcome, works))] for outcome, works in outcomes]
    return {"name": "index", "targets": targets, "kernels": [[file, cells] for file, cells in table.items()], "outcomes": words}


def _duplicate(row: tuple[Any, ...]) -> dict[str, str]:
    files, copies, spare, target, first, digest = row
    return {
        "files": f"{files:,}",
        "copies": f"{copies:,}",
        "spare": size(spare),
        "target": target,
        "first": safe(first),
        "sha256": digest[:16],
    }
