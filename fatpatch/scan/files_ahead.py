"""The files of many distributions, read by all processors before they are asked for in turn.

Workers get paths and send nodes back without their bytes. What cannot be read there, or has members of its own, is left to whoever asks
for it, so that answers are the same with and without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits, Remote
from fatpatch.base.locator import escape
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.base.workers import in_batches, in_order
from fatpatch.model.tree import Node
from fatpatch.scan.distributions import Distribution, FileAhead, places
from fatpatch.scan.walk import inspected

PARALLEL_FROM = 256 << 20
"""Bytes of files from which on further processes are worth their start."""

_PART: Final = 4
"""So many bytes of a file are as much work as one byte of an unpacked image: most of it is not read."""


class _FileTask(NamedTuple):
    path: str
    real: str
    inside: str
    size: int


def read_ahead(distributions: Sequence[Distribution], limits: Limits) -> list[tuple[FileAhead, ...]]:
    """The files of each distribution; nothing where they are few or there is one processor.

    All are read before the first is judged: judging may start processes of its own.
    """
    workers = os.cpu_count() or 1
    tasks = [list(_tasks(each)) for each in distributions] if workers > 1 else []
    if sum(task.size for mine in tasks for task in mine) < PARALLEL_FROM:
        return []
    batches = in_batches((task for mine in tasks for task in mine), lambda task: task.size // _PART)
    read = partial(_read_all, limits=limits._replace(remote=Remote()))
    nodes = (node for found in in_order(read, batches, workers) for node in found)
    return [tuple(FileAhead(task.path, task.real, _with_source(next(nodes), task)) for task in mine) for mine in tasks]


def _tasks(distribution: Distribution) -> Iterator[_FileTask]:
    inside = escape(distribution.name)
    for path, real in places(distribution):
        try:
            yield _FileTask(path, real, inside, os.path.getsize(real))
        except OSError:  # whoever asks for it says why
            yield _FileTask(path, real, inside, 0)


def _with_source(node: Node | None, task: _FileTask) -> Node | None:
    return None if node is None else node._replace(source=Source.known(task.real, node.size))


def _read_all(tasks: tuple[_FileTask, ...], limits: Limits) -> list[Node | None]:
    return [_read(task, limits) for task in tasks]


def _read(task: _FileTask, limits: Limits) -> Node | None:
    """The node of a file without its source; None where reading fails or where its bytes are not those of the file itself."""
    try:
        with inspected(task.real, name=task.path, inside=task.inside, limits=limits) as node:
            source = node.source
            own = source is not None and source.path == task.real and (source.base, source.size) == (0, node.size)
            return node._replace(path=task.path, source=None) if own and not node.members and node.image is None else None
    except FatpatchError:
        return None
