"""Bytes appended to an archive itself, without a copy, so that it can be read at every moment.

A zip is read from its end, and readers look for the end records in the last 64 KiB. So a copy of the old directory travels ahead of the
new data: each step appends less than 64 KiB that end in such a copy, and only then overwrites the copy before. Whenever the process
dies, the last whole copy is still near enough to the end, and shows the old archive; the last step of all brings the new directory.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from fatpatch.base.copying import write_all
from fatpatch.base.errors import FatpatchError, InputError, VerifyError
from fatpatch.base.locking import HAS_LOCKS
from fatpatch.base.overlay import Overlay, same_bytes
from fatpatch.base.source import Source
from fatpatch.binfmt.zip.read import END, Directory, find_directory
from fatpatch.binfmt.zip.write import PAGE, end_records_size, old_directory
from fatpatch.edit.host.tree import TreeEdit
from fatpatch.edit.transaction.file_stamp import FileStamp, refuse_changed
from fatpatch.formats import numbers as n

_WINDOW = 56 << 10
_MAX_DIRECTORY = 24 << 10


def can_append(edit: TreeEdit) -> bool:
    """Whether the edit only appends to an archive whose directory is small enough to travel."""
    if edit.spare_at is None or not HAS_LOCKS:
        return False
    base = edit.overlay.base
    directory = find_directory(base)
    assert directory is not None
    end = base.size - END.size - len(directory.comment)
    ends_there = base.peek(end, 4) == n.ZIP_END_MAGIC  # bytes behind the end records would count against the 64 KiB
    small = len(old_directory(base, 0)) <= _MAX_DIRECTORY and edit.overlay.tail[-1].size <= _WINDOW
    return ends_there and small and not _misleading(edit.overlay, edit.spare_at)


def _misleading(overlay: Overlay, spare_at: int) -> bool:
    """Whether the new data hold end records of their own (a zip in the zip): a reader would take those while they come last."""
    size = spare_at - overlay.kept
    return Source.joined(overlay.tail).find(n.ZIP_END_MAGIC, 0, size) >= 0


def append(path: str, edit: TreeEdit, before: FileStamp, remember: Callable[[], None], forget: Callable[[], None]) -> None:
    """Append the tail of the edit's overlay, whose last part is the new directory, to the file at ``path``, which the caller has locked.

    ``remember`` keeps the record of the edit before the first byte is written; ``forget`` takes it back.
    """
    overlay, spare_at = edit.overlay, edit.spare_at
    assert spare_at is not None
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    except OSError as error:
        hint = "it is being run: stop it first" if error.errno == errno.ETXTBSY else "give a file that you may write to"
        raise InputError(f"cannot write: {error.strerror}", locator=path, hint=hint) from error
    try:
        refuse_changed(path, before)
        try:
            remember()
            _append(descriptor, overlay, spare_at)
            _read_back(path, overlay)
        except BaseException as error:
            if os.fstat(descriptor).st_size > overlay.kept:
                os.ftruncate(descriptor, overlay.kept)
            os.fsync(descriptor)
            os.utime(path, ns=(os.stat(path).st_atime_ns, before.modified))
            with suppress(FatpatchError):
                forget()
            if isinstance(error, OSError):
                hint = "make room on the disk, or give another place with -o"
                raise InputError(f"cannot write: {error.strerror}; the file is as it was", locator=path, hint=hint) from error
            raise
    finally:
        os.close(descriptor)


def _read_back(path: str, overlay: Overlay) -> None:
    tail = Source.joined(overlay.tail)
    with open(path, "rb") as again:
        written = Source.of_file(again)
        if written.size != overlay.size or not same_bytes(written.slice(overlay.kept, tail.size), tail):
            raise VerifyError("the appended bytes read back differently", locator=path)


def _append(descriptor: int, overlay: Overlay, spare_at: int) -> None:
    base, final, start = overlay.base, overlay.tail[-1], overlay.kept
    data = Source.joined(overlay.tail[:-1])
    directory = find_directory(base)
    assert directory is not None
    size = len(old_directory(base, 0))
    end, copy_at = start, -1
    while copy_at < spare_at:
        following = spare_at if end + _WINDOW - size >= spare_at else _in_one_page(min(end + _WINDOW, spare_at) - size, directory)
        _write(descriptor, end, data.read(end - start, following - end) + old_directory(base, following))
        if copy_at >= 0:
            _write(descriptor, copy_at, data.read(copy_at - start, size))
        copy_at, end = following, following + size
    _write(descriptor, end, data.read(end - start, data.size - (end - start)))
    os.fsync(descriptor)
    _write(descriptor, start + data.size, final.read(0, final.size))
    os.fsync(descriptor)


def _in_one_page(at: int, directory: Directory) -> int:
    """The nearest offset below, for a copy of the directory, whose end records do not lie across two pages."""
    over = (at + directory.size) % PAGE + end_records_size(directory) - PAGE
    return at - max(over, 0)


def _write(descriptor: int, at: int, data: bytes) -> None:
    os.lseek(descriptor, at, os.SEEK_SET)
    write_all(descriptor, data)
