"""The page about an index: whom its files serve, which files fail where, what they hold twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fatpatch.base.errors import FormatError
from fatpatch.base.words import plural, safe, size
from fatpatch.commands._shared.page import grade, page
from fatpatch.gpus.devices import family, well_known
from fatpatch.gpus.fleet import by_target, series
from fatpatch.index.database import Database
from fatpatch.index.questions import QUESTIONS
from fatpatch.release.words import outcome_words
from fatpatch.verdicts.all_gpus import Answer

_MOST_ROWS = 100
_SHOWN = 20
_COUNTS = (
    ("files", "SELECT count(*) FROM location"),
    ("files with GPU code", "SELECT count(DISTINCT location.path) FROM location JOIN payload USING (artifact)"),
    ("libraries", "SELECT count(*) FROM (SELECT DISTINCT location.path, holder FROM verdict JOIN location USING (artifact))"),
    ("files not read", "SELECT count(*) FROM location WHERE error IS NOT NULL"),
    ("parts not read", "SELECT count(*) FROM location JOIN finding USING (artifact)"),
    ("images", "SELECT count(*) FROM entry JOIN location USING (artifact)"),
    ("different images", "SELECT count(*) FROM image"),
    ("kernels", "SELECT count(DISTINCT name) FROM kernel"),
)
_FILES, _PARTS = 3, 4
"""Where in ``_COUNTS`` what could not be read is counted."""
_SIZES = (
    ("GPU code, stored", "SELECT sum(stored_size) FROM entry JOIN location USING (artifact)"),
    (
        "of that copies",
        """SELECT sum(spare) FROM (SELECT sum(stored_size) - max(stored_size) AS spare
        FROM entry JOIN location USING (artifact) GROUP BY image)""",
    ),
)


def overview(index: Database) -> str:
    """The text of the page; FormatError for an index with values that no audit writes."""
    try:
        return _overview(index)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise FormatError(f"holds a value that no audit writes: {error!s:.80}", locator=index.path) from error


def _overview(index: Database) -> str:
    gpus = list(_gpus(index))
    files = _files(index, [row["target"] for row in gpus])
    errors, duplicates = _rows(index, QUESTIONS["errors"].sql), _rows(index, QUESTIONS["duplicates"].sql, _SHOWN)
    parts = [("summary", "Summary"), ("gpus", "GPUs"), ("duplicates", "Duplicates"), ("errors", "Not read")]
    return page(
        "overview.html.j2",
        title=f"{plural(_count(index, _COUNTS[0][1]), 'indexed file')}",
        parts=parts,
        explored=[files] if files["kernels"] else [],
        mode="files",
        facts=list(_facts(index)),
        gpus=gpus,
        duplicates=[_duplicate(row) for row in duplicates],
        errors=[{"file": safe(row[0]), "place": safe(row[1]), "message": safe(row[2])} for row in errors[:_MOST_ROWS]],
        error_count=len(errors),
        error_words=f"{plural(_count(index, _COUNTS[_FILES][1]), 'file')} and {plural(_count(index, _COUNTS[_PARTS][1]), 'part')} of files",
    )


def _rows(index: Database, question: str, *values: Any) -> list[tuple[Any, ...]]:
    return list(index.rows(question, values)[1])


def _count(index: Database, question: str) -> int:
    return int(_rows(index, question)[0][0] or 0)


def _facts(index: Database) -> Iterator[tuple[str, str]]:
    for word, question in _COUNTS:
        yield word, f"{_count(index, question):,}"
    for word, question in _SIZES:
        yield word, size(_count(index, question))


def _gpus(index: Database) -> list[dict[str, Any]]:
    """For each target how many files run, and how the others fare."""
    counts: dict[str, list[tuple[str, int, int]]] = {}
    question = "SELECT gpu, outcome, works, count(*) FROM verdict JOIN location USING (artifact) GROUP BY 1, 2, 3"
    for gpu, outcome, works, count in _rows(index, question):
        counts.setdefault(gpu, []).append((outcome, works, count))
    result = []
    for target, devices in by_target().items():
        if target not in counts:
            continue
        names = well_known(devices)
        total = sum(count for _, _, count in counts[target])
        running = sum(count for _, works, count in counts[target] if works)
        result.append(
            {
                "target": target,
                "generation": ", ".join(filter(None, (family(target), series(names)))),
                "products": len(names),
                "running": f"{running:,} of {total:,}",
                "share": round(100 * running / total),
                "others": ", ".join(f"{count} {outcome_words(outcome)}" for outcome, works, count in sorted(counts[target]) if not works),
            }
        )
    return result


def _files(index: Database, targets: list[str]) -> dict[str, Any]:
    """Files by GPU target: a cell is the number of an outcome."""
    question = """SELECT CASE WHEN verdict.holder = '' THEN location.path ELSE location.path || '!' || verdict.holder END,
        gpu, outcome, works FROM verdict JOIN location USING (artifact) ORDER BY 1"""
    place = {target: column for column, target in enumerate(targets)}
    outcomes: dict[tuple[str, bool], int] = {}
    table: dict[str, list[int | None]] = {}
    for file, gpu, outcome, works in _rows(index, question):
        if gpu in place:
            cells = table.setdefault(safe(file), [None] * len(targets))
            cells[place[gpu]] = outcomes.setdefault((outcome, bool(works)), len(outcomes))
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
