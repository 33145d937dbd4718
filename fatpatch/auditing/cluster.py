"""The same work on a Dask cluster (the extra [dask]): workers read the files or addresses themselves, and rows come back when done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fatpatch import __version__
from fatpatch.auditing.examine import Task, examine
from fatpatch.auditing.record import Examined
from fatpatch.errors import InputError, ToolError
from fatpatch.limits import Limits

_AHEAD = 8
_RETRIES = 3


def examined_on(address: str, tasks: Iterable[Task], limits: Limits) -> Iterator[Examined]:
    """The results as they come. A lost worker's files are given to others; one that kills its workers cannot be read."""
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ToolError("needs dask.distributed, which is not installed", hint="pip install 'fatpatch[dask]'") from error
    try:
        client = Client(address, timeout="20s", set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no scheduler answers: {error}", locator=address, hint="such as tcp://scheduler:8786") from error
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
                yield _result(future, running.pop(future))
                if (following := start()) is not None:
                    done.add(following)
        finally:
            client.cancel(list(running))


def _result(future: Any, task: Task) -> Examined:
    try:
        found: Examined = future.result()
    except Exception as error:  # KilledWorker, or whatever a broken worker raises: one file must not end the audit
        return Examined(task.location, task.state, None, f"reading it failed on the cluster: {type(error).__name__}")
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
