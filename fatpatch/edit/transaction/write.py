"""An overlay written as a file: a temporary neighbour, verified, synced, then named. ``kill -9`` leaves the old file or the new one."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from fatpatch.base.copying import clone, copy_range, extents_of, punch, write_around_zeros, write_at
from fatpatch.base.errors import EditError, InputError
from fatpatch.base.leftovers import prefix_for, remove_neighbours
from fatpatch.base.overlay import Overlay
from fatpatch.base.source import Source
from fatpatch.base.writing import give_name, sync_folder

_LONG = 1 << 18
Verify = Callable[[str], None]
"""Called with the path of the finished temporary file; raises when it is not as planned."""


def write_overlay(overlay: Overlay, path: str, *, like: str, replace: bool, verify: Verify, modified: int | None = None) -> None:
    """Write ``overlay`` to ``path``. Mode, owner (where allowed) and extended attributes are those of the file ``like``.

    The time of modification is now, or ``modified`` (nanoseconds). EditError when ``path`` exists and ``replace`` is false.
    """
    folder = os.path.dirname(path) or "."
    temporary = ""
    remove_neighbours(path)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=prefix_for(path), suffix=".tmp", dir=folder)
        try:
            _fill(descriptor, overlay)
            _dress(descriptor, temporary, like, modified)
            with _syncing(descriptor):
                verify(temporary)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        overlay.base.close()  # a system may refuse to replace a file that is open; it is opened again if need be
        give_name(temporary, path, replace)
        sync_folder(folder)
    except FileExistsError as error:
        raise EditError("exists already", locator=path, hint="choose another name, or --overwrite to replace it") from error
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", locator=path, hint=_advice(error)) from error
    finally:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)


@contextmanager
def _syncing(descriptor: int) -> Iterator[None]:
    """Let the system write to the disk meanwhile. It tells of an error once, to this call or the one behind it."""
    failed: list[OSError] = []

    def sync() -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=sync)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if failed:
        raise failed[0]


def _advice(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left on the disk; nothing was changed"
    return "give a place that you may write to with -o; nothing was changed"


def _fill(descriptor: int, overlay: Overlay) -> None:
    zeroed = False
    if overlay.kept and overlay.base.path is not None and overlay.base.base == 0:
        holes = [(write.offset, write.end) for write in overlay.writes if write.data.empty]
        with open(overlay.base.path, "rb") as base:
            zeroed = clone(base.fileno(), descriptor, overlay.kept, holes)
    elif overlay.kept:
        _put(descriptor, 0, overlay.base.slice(0, overlay.kept))
    for write in overlay.writes:
        if not (write.data.empty and (zeroed or punch(descriptor, write.offset, write.data.size))):
            _put(descriptor, write.offset, write.data)
    at = overlay.kept
    os.ftruncate(descriptor, overlay.size)
    for part in (piece for each in overlay.tail for piece in each.flat()):
        if not part.empty:  # holes in the grown file read as zeros
            _put(descriptor, at, part, blank=True)
        at += part.size


def _put(descriptor: int, at: int, source: Source, *, blank: bool = False) -> None:
    """The bytes at their place; long runs of a file go there inside the kernel. ``blank``: that place is a hole, so holes stay holes."""
    for part in source.flat():
        if part.path is not None and part.size >= _LONG:
            with open(part.path, "rb") as stream:
                end = part.base + part.size
                for first, last in extents_of(stream.fileno(), end, part.base) if blank else [(part.base, end)]:
                    copy_range(stream.fileno(), descriptor, first, last, at + first - part.base)
        else:
            start = at
            for chunk in part.chunks():
                write_around_zeros(descriptor, start, chunk) if blank else write_at(descriptor, start, chunk)
                start += len(chunk)
        at += part.size


def _dress(descriptor: int, temporary: str, like: str, modified: int | None) -> None:
    status = os.stat(like)
    with suppress(OSError):
        shutil.copystat(like, temporary)
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))  # a change of owner takes these bits away
    except (OSError, AttributeError):  # the file is ours then, and must not run others as us
        with suppress(OSError):
            os.chmod(temporary, stat.S_IMODE(status.st_mode) & ~(stat.S_ISUID | stat.S_ISGID))
    if modified is None:
        os.utime(temporary)
    else:
        os.utime(temporary, ns=(status.st_atime_ns, modified))
