"""The same work on a Dask cluster (the extra [dask]): workers read the files or addresses themselves, and rows come back when done."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from fatpatch import __version__
from fatpatch.base.errors import InputError, ToolError
from fatpatch.base.limits import Limits
from fatpatch.index.examine import Task, examine, failed
from fatpatch.index.record import Examined

_AHEAD = 8
_RETRIES = 3


def examined_on(address: str, tasks: Iterable[Task], limits: Limits) -> Iterator[Examined]:
    """The results as they come. A lost worker's files are given to others; one that kills its workers cannot be read."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ToolError("needs dask.distributed, which is not installed", hint="pip install 'fatpatch[dask]'") from error
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what it would say of a lost worker is said here
    try:
        client = Client(address, timeout="20s", set_as_default=False)
    except Exception as error:  # whatever a protocol raises that is not installed, not known, or not set up
        words = f"no scheduler answers: {type(error).__name__}: {error!s:.200}"
        raise InputError(words, locator=address, hint="such as tcp://scheduler:8786") from error
    with client:
        _check_versions(client, address)
        waiting = iter(tasks)
        running: dict[Any, Task] = {}

        def start() -> Any:
            task = next(waiting, None)
            if task is None:
                return None
            future = client.submit(examine, task, limits, pure=False, retries=_RETRIES)
            running[future] = task
            return future

        workers = sum(client.nthreads().values())
        first = [future for _ in range(_AHEAD * max(workers, 1)) if (future := start()) is not None]
        done = as_completed(first, loop=client.loop)
        try:
            for future in done:
                task = running.pop(future)
                if client.status != "running":
                    raise InputError("the cluster went away", locator=address, hint="run the same command again: it goes on from here")
                yield _result(future, task, limits)
                if (following := start()) is not None:
                    done.add(following)
        finally:
            client.cancel(list(running))


def _result(future: Any, task: Task, limits: Limits) -> Examined:
    try:
        found: Examined = future.result()
    except Exception as error:  # KilledWorker, or whatever a broken worker raises: one file must not end the audit
        return failed(task, limits, f"reading it failed on the cluster: {type(error).__name__}")
    return found


def _check_versions(client: Any, address: str) -> None:
    """ToolError when a worker has another fatpatch, or none: its rows would be others."""
    found = client.run(_version)
    if not found:
        raise InputError("the cluster has no workers", locator=address, hint="start some: dask worker ADDRESS")
    other = {version for version in found.values() if version != __version__}
    if other:
        raise ToolError(f"workers have fatpatch {', '.join(sorted(map(str, other)))}, here is {__version__}", locator=address)


def _version() -> str:
    return __version__
