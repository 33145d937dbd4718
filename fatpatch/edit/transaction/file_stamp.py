"""Which bytes a file had when it was read, so that a change behind our back is noticed before anything is renamed."""

from __future__ import annotations

import os

from fatpatch.base.errors import EditError, InputError
from fatpatch.base.records import NamedTuple


class FileStamp(NamedTuple):
    """What the system says of a file: a change of its bytes changes one of these."""

    device: int
    inode: int
    size: int
    modified: int


def state_of(path: str) -> FileStamp:
    """The state of the file at ``path``."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"cannot open: {error.strerror}", locator=path, hint="give the path of a file that you may read") from error
    return FileStamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def refuse_changed(path: str, before: FileStamp) -> None:
    """EditError when the file is no longer the one that was read."""
    if state_of(path) != before:
        raise EditError(
            "was changed while it was being read: nothing was written", locator=path, hint="stop what writes to it, and try again"
        )
