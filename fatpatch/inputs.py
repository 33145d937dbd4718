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
            real = each.path if real == each.path else real  # one string, not two, of each of a million files
            if real not in seen:
                seen.add(real)
                yield each._replace(origin=name)


def _expanded(path: str, name: str) -> Iterator[Input]:
    if scheme_of(path):
        yield Input(path, name, named=True)
    elif os.path.isdir(path):
        yield from _below(path, name.rstrip("/"), set())
    elif not os.path.lexists(path) and any(char in path for char in "*?["):
        import glob

        found = sorted(glob.glob(path, recursive=True))
        prefix = path.removesuffix(name) if path.endswith(name) else ""  # an absolute pattern is shown by its end
        for each in found:
            yield from (inner._replace(named=False) for inner in _expanded(each, each.removeprefix(prefix)))
        if not found:
            yield Input(path, name, named=True)
    else:
        yield Input(path, name, named=True)


def _below(folder: str, name: str, seen: set[str]) -> Iterator[Input]:
    """Every file below a folder, linked folders too, each once. What cannot be opened is an input: reading it says why."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted((entry.is_dir(), entry.name) for entry in os.scandir(folder))  # files first
    except OSError:
        yield Input(folder, name, named=False)
        return
    for is_folder, last in entries:
        path, shown = os.path.join(folder, last), f"{name}/{last}"
        shown = path if shown == path else shown
        if is_folder:
            yield from _below(path, shown, seen)
        else:
            yield Input(path, shown, named=False)
