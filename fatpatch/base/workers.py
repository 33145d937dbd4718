"""Workers whose results come back in order, a few tasks ahead of whoever takes them: memory does not grow with the work."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from fatpatch.base.errors import InternalError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")
_AHEAD = 3
_BATCH = 8 << 20


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for: it must not live on. One that is told to end does so quietly."""
    import multiprocessing
    import signal
    import threading
    from multiprocessing.connection import wait

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal: the parent says what there is to say
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that its temporary files are removed

    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def in_batches(
    items: Iterable[_Task], weight: Callable[[_Task], int], together: Callable[[_Task, _Task], bool] = lambda first, second: False
) -> Iterator[tuple[_Task, ...]]:
    """Runs of items that weigh 8 MiB or little more: tasks worth their way to a worker; not parted where two belong ``together``."""
    batch: list[_Task] = []
    total = 0
    for item in items:
        if total >= _BATCH and not together(batch[-1], item):
            yield tuple(batch)
            batch, total = [], 0
        batch.append(item)
        total += weight(item)
    if batch:
        yield tuple(batch)


def in_order(function: Callable[[_Task], _Result], tasks: Iterable[_Task], workers: int, *, apart: bool = False) -> Iterator[_Result]:
    """The result of each task; with one worker in this process, unless it shall be ``apart``. InternalError when a worker is killed."""
    if workers <= 1 and not apart:
        yield from map(function, tasks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
    try:
        yield from _ahead(pool, function, tasks, workers)
    except BrokenProcessPool as error:
        raise InternalError("a worker process was killed", hint="look whether memory ran out, or use --jobs 1") from error


def in_threads(function: Callable[[_Task], _Result], tasks: Iterable[_Task]) -> Iterator[_Result]:
    """As ``in_order``, by a thread a processor: for work in C that lets other threads run, such as compression."""
    workers = os.cpu_count() or 1
    if workers <= 1:
        yield from map(function, tasks)
        return
    from concurrent.futures import ThreadPoolExecutor

    yield from _ahead(ThreadPoolExecutor(workers), function, tasks, workers)


def _ahead(pool: Executor, function: Callable[[_Task], _Result], tasks: Iterable[_Task], workers: int) -> Iterator[_Result]:
    """The results in order; so many tasks a worker are under way or done and not yet taken."""
    waiting: deque[Future[_Result]] = deque()
    with pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(function, task))
                if len(waiting) >= workers * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
