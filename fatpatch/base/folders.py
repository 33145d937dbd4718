"""What lies below a folder. Links to folders are named and not followed; a folder that may not be read is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from fatpatch.base.records import NamedTuple


class FolderEntries(NamedTuple):
    """One folder: ``below`` is empty for the root, else its path below that, with a slash at its end. ``folders`` are sorted."""

    below: str
    path: str
    folders: list[str]
    files: list[str]


def folders_below(root: str) -> Iterator[FolderEntries]:
    """A folder and those below it, each before what is in it, as ``os.walk`` gives them in less time."""
    waiting = [("", root)]
    while waiting:
        below, path = waiting.pop()
        found = FolderEntries(below, path, [], [])
        inner: list[tuple[str, str]] = []
        with suppress(OSError), os.scandir(path) as entries:
            for entry in entries:
                if not _is_folder(entry):
                    found.files.append(entry.name)
                    continue
                found.folders.append(entry.name)
                if not entry.is_symlink():
                    inner.append((entry.name, entry.path))
        found.folders.sort()
        yield found
        waiting += ((f"{below}{name}/", path) for name, path in sorted(inner, reverse=True))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
