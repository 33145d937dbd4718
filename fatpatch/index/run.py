"""A run over many files: what is known and unchanged is skipped, the rest examined in processes and stored as it comes."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from fatpatch.base.errors import InternalError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.base.workers import in_order
from fatpatch.index.database import Database
from fatpatch.index.examine import Task, current, examine, failed
from fatpatch.index.record import Examined
from fatpatch.remote.address import HTTP, scheme_of, shown_address
from fatpatch.remote.inputs import Input

OnDone = Callable[[Examined, int, int], object]
"""Called for each file that was examined, with how many of all files are behind it."""


class IndexSummary(NamedTuple):
    """What a run did: files given, those that were known and unchanged, those that could not be read, or in part only; seconds."""

    files: int
    unchanged: int
    unreadable: int
    partly: int
    seconds: float


def audit(
    inputs: Sequence[Input], database: Database, limits: Limits, *, jobs: int | None, cluster: str | None = None, on_done: OnDone
) -> IndexSummary:
    """Bring the index up to date with the files, by processes here or on a Dask ``cluster``. The database is whole after every file."""
    began = time.monotonic()
    tasks = _Changed(inputs, database, limits)
    unreadable = partly = 0
    workers = min(jobs or os.cpu_count() or 1, max(len(inputs), 1))
    results = _examined(tasks, limits, workers) if cluster is None else _on_cluster(cluster, tasks, limits)
    for done, found in enumerate(results, 1):
        database.store(found)
        unreadable += found.contents is None
        partly += found.contents is not None and any(item.level == "error" for item in found.contents.findings)
        on_done(found, done + tasks.unchanged, len(inputs))
    database.tidy()
    return IndexSummary(len(inputs), tasks.unchanged, unreadable, partly, time.monotonic() - began)


def shard(inputs: Sequence[Input], index: int, count: int) -> list[Input]:
    """Every ``count``-th file, from the ``index``-th (1 to count) on: all shards together are all files."""
    return [each for position, each in enumerate(inputs) if position % count == index - 1]


def location_of(given: Input) -> str:
    """What the index calls a file: its path as it was given; of an address no secrets, but a mark of what was left out."""
    import hashlib

    scheme, path = scheme_of(given.path), given.path
    if scheme is None:
        shown = path.replace(f"{os.sep}{os.sep}", os.sep).removeprefix(f".{os.sep}")
        foreign = any("\udc80" <= char <= "\udcff" for char in path)  # bytes that are no UTF-8 are written as escapes
        apart = path if foreign else ""
    else:
        shown = shown_address(path)
        apart = path.partition("#")[0].partition("?")[2] if scheme in HTTP else path if path != shown else ""
    return f"{shown}?{hashlib.sha256(apart.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}" if apart else shown


class _Changed:
    """The files to examine, looked up one by one when they are asked for; those that are known are counted and skipped."""

    def __init__(self, inputs: Iterable[Input], database: Database, limits: Limits) -> None:
        self.unchanged = 0
        self._left = self._tasks(inputs, database, limits)

    def __iter__(self) -> Iterator[Task]:
        return self._left

    def _tasks(self, inputs: Iterable[Input], database: Database, limits: Limits) -> Iterator[Task]:
        for each in inputs:
            location = location_of(each)
            remote = scheme_of(each.path) is not None
            if remote and not database.has(location):
                yield Task(each.path, location, None)  # whoever reads it asks for its state
                continue
            state = current(each.path, limits, attempts=1)
            if state is not None and database.knows(location, state):
                self.unchanged += 1
            else:
                yield Task(each.path, location, state)


def _examined(tasks: Iterable[Task], limits: Limits, workers: int) -> Iterator[Examined]:
    """The results in order. A file that kills its worker is tried once more alone, and then is one that cannot be read."""
    work = partial(examine, limits=limits)
    left, taken = iter(tasks), deque[Task]()
    while True:
        try:
            for found in in_order(work, _noting(left, taken), workers):
                taken.popleft()
                yield found
            return
        except InternalError:
            while taken:
                yield _alone(taken.popleft(), limits)


def _noting(tasks: Iterator[Task], taken: deque[Task]) -> Iterator[Task]:
    """The tasks, each noted when it is taken: those whose result is missing when a worker dies."""
    for task in tasks:
        taken.append(task)
        yield task


def _on_cluster(address: str, tasks: Iterable[Task], limits: Limits) -> Iterator[Examined]:
    from fatpatch.index.cluster import examined_on

    yield from examined_on(address, tasks, limits)


def _alone(task: Task, limits: Limits) -> Examined:
    try:
        return next(iter(in_order(partial(examine, limits=limits), [task], 1, apart=True)))
    except InternalError:
        return failed(task, limits, "reading it killed the process")
