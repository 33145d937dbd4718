"""One editor of a file at a time, where the system has advisory locks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fatpatch.base.errors import EditError, InputError

HAS_LOCKS = sys.platform != "win32"


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Keep other fatpatch processes from editing the file; EditError when one is at it."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot open: {error.strerror}", locator=path, hint="give a file that you may read") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.fstat(descriptor).st_ino == os.stat(path).st_ino  # else it was replaced while we opened it
        except OSError:
            same = False
        if not same:
            raise EditError("is being edited by another process", locator=path, hint="wait for it to end")
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # a worker process that has not ended yet holds the descriptor too
    finally:
        os.close(descriptor)
