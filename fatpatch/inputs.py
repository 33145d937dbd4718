"""The files that a command line means: those named, those below folders, those that a pattern fits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fatpatch.remote.address import scheme_of


class Input(NamedTuple):
    """A file to read: its path, how it is shown, and whether the user named it or a folder that it lies in (``origin``)."""

    path: str
    shown: str
    named: bool
    origin: str = ""


def expanded(paths: Sequence[str], shown: Sequence[str]) -> Iterator[Input]:
    """The files to read: those named, those below folders, those that a pattern fits where the shell has left it; each once."""
    seen: set[str] = set()
    for path, name in zip(paths, shown, strict=True):
        for each in _expanded(path, name):
            real = each.path if scheme_of(each.path) else os.path.realpath(each.path)
            if real not in seen:
                seen.add(real)
                yield each._replace(origin=name)


def _expanded(path: str, name: str) -> Iterator[Input]:
    if scheme_of(path):
        yield Input(path, name, named=True)
    elif os.path.isdir(path):
        for folder, folders, names in os.walk(path):
            folders.sort()
            for each in sorted(names):
                full = os.path.join(folder, each)
                if os.path.isfile(full):
                    yield Input(full, f"{name.rstrip('/')}/{os.path.relpath(full, path)}".replace(os.sep, "/"), named=False)
    elif not os.path.lexists(path) and any(char in path for char in "*?["):
        import glob

        found = sorted(glob.glob(path, recursive=True))
        for each in found:
            yield from (inner._replace(named=False) for inner in _expanded(each, each))
        if not found:
            yield Input(path, name, named=True)
    else:
        yield Input(path, name, named=True)
