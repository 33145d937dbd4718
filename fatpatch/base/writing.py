"""Files appear under their final name whole or not at all: a temporary neighbour is written, synced, then named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress

from fatpatch.base.errors import EditError, InputError
from fatpatch.base.leftovers import prefix_for


def write_file(path: str, pieces: Iterable[bytes], *, replace: bool, sync: bool = True) -> None:
    """Write ``pieces`` to ``path``; EditError when it exists and ``replace`` is false. Never writes through a link.

    Without ``sync`` a power cut may lose the file, as it may any that can be made again. What a killed run leaves beside it is removed by
    ``leftovers.remove_neighbours(path)``.
    """
    folder, name = os.path.split(path)
    if replace and os.path.lexists(path) and not (os.path.isfile(path) or os.path.islink(path)):
        raise EditError("is there already, and is not a regular file", locator=path, hint="give another name")
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=prefix_for(path), suffix=".tmp", dir=folder or ".")
        with os.fdopen(descriptor, "wb") as sink:
            for piece in pieces:
                sink.write(piece)
            sink.flush()
            if hasattr(os, "fchmod"):
                os.fchmod(sink.fileno(), 0o666 & ~_umask())
            if sync:
                os.fsync(sink.fileno())
        give_name(temporary, path, replace)
    except FileExistsError as error:
        raise EditError(f"{name} exists already", locator=path, hint="give another folder, or --overwrite") from error
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", locator=path, hint="give a folder that you may write to") from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


def give_name(temporary: str, path: str, replace: bool) -> None:
    """Give the finished file its name; FileExistsError when it is taken."""
    if replace:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the check and the rename are two steps there
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        os.rename(temporary, path)


def sync_folder(folder: str) -> None:
    """Make names in a folder last through a power cut, where the system offers that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def make_folder(folder: str) -> None:
    """A folder for results, and those above it; EditError where that cannot be."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder: {error.strerror}"
        raise EditError(message, locator=folder, hint="give a folder that you may write to") from error
