"""Many files scanned into an index, and what the index says of all of them together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fatpatch.api.gpus import find
from fatpatch.api.queries import opened_index
from fatpatch.base.errors import FormatError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.index.database import Database
from fatpatch.index.questions import QUESTIONS
from fatpatch.index.record import Examined
from fatpatch.index.run import IndexSummary, audit, shard
from fatpatch.named.resolve import resolve
from fatpatch.named.unit import NamingChoices, files_of
from fatpatch.remote.inputs import Input

__all__ = [
    "AuditTask",
    "Examined",
    "IndexSummary",
    "Overview",
    "audited",
    "inputs_of",
    "not_of_an_audit",
    "overview",
    "served",
    "target_of",
]


class AuditTask(NamedTuple):
    """The files; the processes that read them, or a Dask ``cluster``; ``again``: unchanged files, too."""

    inputs: Sequence[Input]
    jobs: int | None = None
    cluster: str | None = None
    again: bool = False


def inputs_of(
    names: Sequence[str], choices: NamingChoices, *, simple_index: str | None = None, part: tuple[int, int] | None = None
) -> list[Input]:
    """The files that names mean; of projects of a ``simple_index`` their wheels. ``part``: the I-th of N parts alone."""
    if simple_index is not None:
        from fatpatch.remote.index import wheels

        names = [address for name in names for address in wheels(simple_index, name, choices.remote)]
    inputs = files_of(resolve(names, names, choices))
    return inputs if part is None else shard(inputs, *part)


def audited(task: AuditTask, path: str, limits: Limits, on_done: Callable[[Examined, int, int], object]) -> IndexSummary:
    """Bring the index up to date, which is created if missing; ``on_done`` is told of each file that was read."""
    with opened_index(path, create=True) as index:
        if task.again:
            index.forget()
        return audit(task.inputs, index, limits, jobs=task.jobs, cluster=task.cluster, on_done=on_done)


def target_of(gpu: str) -> str:
    """The target of a GPU. InputError for a name that is not known."""
    return find(gpu).target


def served(path: str, targets: Sequence[str]) -> list[tuple[int, int]]:
    """(libraries that run, libraries with code for its vendor) of the index for each target."""
    with opened_index(path) as index:
        question = "SELECT coalesce(sum(works), 0), count(*) FROM verdict WHERE gpu = ?"
        return [(works, count) for target in targets for works, count in index.rows(question, (target,))[1]]


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
_SIZES = (
    ("GPU code, stored", "SELECT sum(stored_size) FROM entry JOIN location USING (artifact)"),
    (
        "of that copies",
        """SELECT sum(spare) FROM (SELECT sum(stored_size) - max(stored_size) AS spare
        FROM entry JOIN location USING (artifact) GROUP BY image)""",
    ),
)
_SHOWN = 20


class Overview(NamedTuple):
    """What an index says of all its files. ``counts`` and ``sizes``: by what is counted, in words.

    ``gpus``: by target (outcome, whether it works, how many); ``files``: (file, target, outcome, whether it works) of each library.
    ``duplicates`` and ``errors``: the rows of the queries of these names.
    """

    counts: dict[str, int]
    sizes: dict[str, int]
    gpus: dict[str, list[tuple[str, int, int]]]
    files: list[tuple[str, str, str, bool]]
    duplicates: list[tuple[Any, ...]]
    errors: list[tuple[Any, ...]]


def overview(path: str) -> Overview:
    """All of it. FormatError for an index with values that no audit writes."""
    with opened_index(path) as index:
        try:
            return _overview(index)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise not_of_an_audit(error, path) from error


def not_of_an_audit(error: Exception, path: str) -> FormatError:
    """What to say of an index with values that no audit writes."""
    return FormatError(f"holds a value that no audit writes: {error!s:.80}", locator=path)


def _overview(index: Database) -> Overview:
    def rows(question: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(index.rows(question, values)[1])

    gpus: dict[str, list[tuple[str, int, int]]] = {}
    question = "SELECT gpu, outcome, works, count(*) FROM verdict JOIN location USING (artifact) GROUP BY 1, 2, 3"
    for gpu, outcome, works, count in rows(question):
        gpus.setdefault(gpu, []).append((outcome, works, count))
    question = """SELECT CASE WHEN verdict.holder = '' THEN location.path ELSE location.path || '!' || verdict.holder END,
        gpu, outcome, works FROM verdict JOIN location USING (artifact) ORDER BY 1"""
    return Overview(
        counts={word: int(rows(question)[0][0] or 0) for word, question in _COUNTS},
        sizes={word: int(rows(question)[0][0] or 0) for word, question in _SIZES},
        gpus=gpus,
        files=[(file, gpu, outcome, bool(works)) for file, gpu, outcome, works in rows(question)],
        duplicates=rows(QUESTIONS["duplicates"].sql, _SHOWN),
        errors=rows(QUESTIONS["errors"].sql),
    )
