"""A run over many files: what is known and unchanged is passed over, the rest examined in processes and stored as it comes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from fatpatch.auditing.database import Database
from fatpatch.auditing.examine import Task, examine
from fatpatch.auditing.record import Examined, State
from fatpatch.errors import FatpatchError, InternalError
from fatpatch.inputs import Input
from fatpatch.limits import Limits
from fatpatch.remote.address import scheme_of, shown_address
from fatpatch.remote.opening import state_of
from fatpatch.workers import in_order

OnDone = Callable[[Examined, int, int], object]
"""Called for each file that was examined, with how many of how many are done."""


class Summary(NamedTuple):
    """What a run did: files given, those that were known and unchanged, those that could not be read; seconds."""

    files: int
    unchanged: int
    unreadable: int
    seconds: float


def audit(
    inputs: Sequence[Input], database: Database, limits: Limits, *, jobs: int | None, cluster: str | None = None, on_done: OnDone
) -> Summary:
    """Bring the index up to date with the files, by processes here or on a Dask ``cluster``. The database is whole after every file."""
    began = time.monotonic()
    tasks = list(_changed(inputs, database, limits))
    unreadable = 0
    workers = min(jobs or os.cpu_count() or 1, max(len(tasks), 1))
    results = _examined(tasks, limits, workers) if cluster is None else _on_cluster(cluster, tasks, limits)
    for done, found in enumerate(results, 1):
        database.store(found)
        unreadable += found.contents is None
        on_done(found, done, len(tasks))
    database.tidy()
    return Summary(len(inputs), len(inputs) - len(tasks), unreadable, time.monotonic() - began)


def shard(inputs: Sequence[Input], index: int, count: int) -> list[Input]:
    """Every ``count``-th file, from the ``index``-th (1 to count) on: all shards together are all files."""
    return [each for position, each in enumerate(inputs) if position % count == index - 1]


def location_of(given: Input) -> str:
    """What the index calls a file: its path as it was given; of an address no secrets, but a mark of its query."""
    if scheme_of(given.path) is None:
        return given.path
    import hashlib

    shown = shown_address(given.path)
    query = given.path.partition("?")[2]
    return f"{shown}?{hashlib.sha256(query.encode()).hexdigest()[:12]}" if query else shown


def _changed(inputs: Iterable[Input], database: Database, limits: Limits) -> Iterator[Task]:
    for each in inputs:
        location = location_of(each)
        try:
            state = state_of(each.path, limits.remote)
        except FatpatchError:
            state = (None, None, None)  # examining it says why
        known = State(*state)
        if not database.knows(location, known):
            yield Task(each.path, location, known)


def _examined(tasks: Sequence[Task], limits: Limits, workers: int) -> Iterator[Examined]:
    """The results in order. A file that kills its worker is tried once more alone, and then is one that cannot be read."""
    work = partial(examine, limits=limits)
    left = list(tasks)
    while left:
        done = 0
        try:
            for found in in_order(work, left, workers):
                done += 1
                yield found
        except InternalError:
            suspects = left[done : done + 3 * workers]
            for task in suspects:
                yield _alone(task, limits)
            done += len(suspects)
        left = left[done:]


def _on_cluster(address: str, tasks: Sequence[Task], limits: Limits) -> Iterator[Examined]:
    from fatpatch.auditing.cluster import examined_on

    yield from examined_on(address, tasks, limits) if tasks else ()


def _alone(task: Task, limits: Limits) -> Examined:
    try:
        return next(iter(in_order(partial(examine, limits=limits), [task], 1, apart=True)))
    except InternalError:
        return Examined(task.location, task.state, None, "reading it killed the process")
