"""One editor of a file at a time, where the system has advisory locks."""

from __future__ import annotations

import sys

from fatpatch.errors import EditError

HAS_LOCKS = sys.platform != "win32"


def lock(descriptor: int, path: str) -> None:
    """Lock the open file until it is closed; EditError when another process has it."""
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise EditError("is being edited by another process", locator=path, hint="wait for it to end") from error
