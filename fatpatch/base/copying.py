"""A copy of a file that costs as little as the file system allows: shared blocks, else a copy inside the kernel, holes kept."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from fatpatch.base.source import CHUNK

_FICLONE = 0x40049409
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_STEP = 1 << 30
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
_NOT_HERE = frozenset({
    errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EBADF, errno.ETXTBSY, errno.EPERM, errno.EACCES,
})  # fmt: skip


def clone(source: int, sink: int, size: int, holes: Sequence[tuple[int, int]]) -> bool:
    """Make the file behind ``sink`` the first ``size`` bytes of the one behind ``source`` (both descriptors).

    ``holes`` are ranges, ascending, that are to become zeros; whether they have: they are not where blocks could be shared.
    """
    if sys.platform == "linux" and _shared(source, sink):
        os.ftruncate(sink, size)
        return False
    os.ftruncate(sink, size)
    for start, end in extents_of(source, size):
        at = start
        for hole, behind in holes:
            if start < behind and hole < end:
                copy_range(source, sink, at, max(hole, at), at)
                at = max(behind, at)
        copy_range(source, sink, at, end, at)
    return True


def _shared(source: int, sink: int) -> bool:
    import fcntl

    try:
        fcntl.ioctl(sink, _FICLONE, source)
    except OSError as error:
        if error.errno in _NOT_HERE:
            return False
        raise
    return True


def extents_of(source: int, size: int, first: int = 0) -> list[tuple[int, int]]:
    """The ranges of [first, size) that hold data; all of it where the system cannot tell."""
    if not hasattr(os, "SEEK_DATA"):
        return [(first, size)]
    extents, at = [], first
    while at < size:
        try:
            start = os.lseek(source, at, os.SEEK_DATA)
            at = min(os.lseek(source, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                break
            return [(first, size)]
        if start < size:
            extents.append((start, at))
    return extents


def copy_range(source: int, sink: int, start: int, end: int, at: int) -> None:
    """Copy the bytes [start, end) of the file behind ``source`` to ``at`` of that behind ``sink`` (both descriptors)."""
    in_kernel = hasattr(os, "copy_file_range")
    while start < end:
        if in_kernel:
            try:
                done = os.copy_file_range(source, sink, min(end - start, _STEP), start, at)
                if done:
                    start += done
                    at += done
                    continue
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
            in_kernel = False
        os.lseek(source, start, os.SEEK_SET)
        data = os.read(source, min(end - start, CHUNK))
        if not data:
            return
        os.lseek(sink, at, os.SEEK_SET)
        write_all(sink, data)
        start += len(data)
        at += len(data)


def punch(descriptor: int, start: int, size: int) -> bool:
    """Make a range of a file zeros that take no room (fallocate with PUNCH_HOLE); False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate64", None)
    if call is None:
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(call(descriptor, _PUNCH_HOLE | _KEEP_SIZE, start, size) == 0)


def write_at(descriptor: int, at: int, data: bytes | memoryview) -> None:
    """Write every byte at an offset."""
    os.lseek(descriptor, at, os.SEEK_SET)
    write_all(descriptor, data)


def write_around_zeros(descriptor: int, at: int, data: bytes) -> None:
    """Write at an offset where the file has a hole, and leave out the whole blocks of it that would be zeros."""
    view, start, end = memoryview(data), 0, 0
    while end < len(data):
        behind = min(end + _BLOCK - (at + end) % _BLOCK, len(data))
        if behind - end == _BLOCK and view[end:behind] == _ZEROS:
            if start < end:
                write_at(descriptor, at + start, view[start:end])
            start = behind
        end = behind
    if start < end:
        write_at(descriptor, at + start, view[start:end])


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write every byte at the descriptor's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
