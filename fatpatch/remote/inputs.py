"""The files that a command line means: those named, those below folders, those that a pattern fits."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.remote.address import scheme_of

REGISTRY = "oci:"
"""How the name of an image in a container registry begins: ``oci:HOST/NAME:TAG``."""


class Input(NamedTuple):
    """A file to read: its path, how it is shown, and whether the user named it or a folder that it lies in (``origin``).

    ``distribution``: the installed package that it belongs to, empty for none.
    """

    path: str
    shown: str
    named: bool
    origin: str = ""
    distribution: str = ""


def expanded(paths: Sequence[str], shown: Sequence[str]) -> Iterator[Input]:
    """The files to read: those named, those below folders, those that a pattern fits where the shell has left it; each once."""
    seen: set[str] = set()
    for path, name in zip(paths, shown, strict=True):
        for each in _expanded(path, name):
            real = each.path if scheme_of(each.path) or "\0" in each.path else os.path.realpath(each.path)
            real = each.path if real == each.path else real  # one string, not two, of each of a million files
            if real not in seen:
                seen.add(real)
                yield each._replace(origin=name)


def _expanded(path: str, name: str) -> Iterator[Input]:
    if scheme_of(path) or "\0" in path:
        yield Input(path, name, named=True)
    elif is_image_layout(path):
        yield Input(path, name.rstrip("/"), named=True)
    elif os.path.isdir(path):
        yield from _below(path, name.rstrip("/"))
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


def _below(folder: str, name: str) -> Iterator[Input]:
    """Every file below a folder, linked folders too, each once. What cannot be opened is an input: reading it says why."""
    seen: set[str] = set()
    left = [(folder, name)]
    while left:
        folder, name = left.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            entries = sorted((_is_folder(entry), entry.name) for entry in os.scandir(folder))  # files first
        except OSError:
            yield Input(folder, name, named=False)
            continue
        layouts = {last for is_folder, last in entries if is_folder and is_image_layout(os.path.join(folder, last))}
        yield from (Input(os.path.join(folder, last), f"{name}/{last}", named=False) for last in sorted(layouts))
        for is_folder, last in entries:
            path, shown = os.path.join(folder, last), f"{name}/{last}"
            if not is_folder:
                yield Input(path, path if shown == path else shown, named=False)
        left += [
            (os.path.join(folder, last), f"{name}/{last}") for is_folder, last in reversed(entries) if is_folder and last not in layouts
        ]


def is_registry_image(path: str) -> bool:
    """Whether a name is that of an image in a registry; a file of that name is a file."""
    return path.startswith(REGISTRY) and not os.path.lexists(path)


def is_image_layout(path: str) -> bool:
    """Whether a folder is an OCI image layout, which is read as one file."""
    return os.path.isfile(os.path.join(path, "oci-layout")) and os.path.isfile(os.path.join(path, "index.json"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Not of a link that leads nowhere or in a circle: reading it says so."""
    try:
        return entry.is_dir()
    except OSError:
        return False
