"""The way back: the original bytes, verified before they take the file's name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fatpatch.base.errors import EditError, InputError, VerifyError
from fatpatch.base.locking import locked
from fatpatch.base.overlay import Overlay
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.zip.append_marker import size_before
from fatpatch.edit.transaction import undo_file
from fatpatch.edit.transaction.file_stamp import FileStamp, refuse_changed, state_of
from fatpatch.edit.transaction.undo_record import Edit, digest, is_at, undone
from fatpatch.edit.transaction.write import write_overlay
from fatpatch.model.tree import Node
from fatpatch.scan.slim_marks import BESIDE
from fatpatch.scan.walk import walked


class Undone(NamedTuple):
    """How many edits were reverted, the size now, and its sha256 where it was recorded."""

    edits: int
    size: int
    sha256: str | None


def undo(path: str, *, last: bool = False) -> Undone:
    """Give the file at ``path`` back the bytes it had before its edits, or before the last one.

    EditError when there is no record, or the file is no longer what the record describes.
    """
    path = os.path.realpath(path)
    with locked(path):
        result, more = _once(path, last=last)
        if not os.path.lexists(undo_file.path_beside(path)):  # the original is back: what slim wrote beside the file is void
            with suppress(OSError):
                os.unlink(path + BESIDE)
    return result if not more else _and_one(undo(path))


@contextmanager
def original(path: str) -> Iterator[Node]:
    """The tree of a file as it was before its edits, by its undo record; EditError when there is none that describes it."""
    source = Source.open(path)
    try:
        done = undo_file.standing(source, undo_file.load(path), path).done
        if not done:
            raise EditError("its undo record describes no edit that stands", locator=path)
        with walked(_back(source, done).source(), os.path.basename(path), keep_bytes=True) as node:
            yield node
    finally:
        source.close()


def _once(path: str, *, last: bool) -> tuple[Undone, bool]:
    """One step back; whether there are more, when only what a cut off append has left was taken off."""
    before = state_of(path)
    source = Source.open(path)
    try:
        recorded = undo_file.load(path)
        found = undo_file.standing(source, recorded, path)
        if found.cut_off is not None:
            _verify(source.slice(0, found.cut_off.old_size), found.cut_off, path)
            _cut(path, found.cut_off.old_size, found.cut_off.modified, before)
            undo_file.save(path, found.done)
            return Undone(1, found.cut_off.old_size, found.cut_off.sha256), bool(found.done) and not last
        if not found.done:
            if not recorded:
                return _by_mark(path, source, before, last=last), False
            undo_file.save(path, ())
            return Undone(0, source.size, recorded[0].sha256), False
        taken = found.done[-1:] if last else found.done
        _take_back(path, source, taken, before)
        undo_file.save(path, found.done[: len(found.done) - len(taken)])
        return Undone(len(taken), taken[0].old_size, taken[0].sha256), False
    finally:
        source.close()


def _and_one(rest: Undone) -> Undone:
    return rest._replace(edits=rest.edits + 1)


def _take_back(path: str, source: Source, taken: tuple[Edit, ...], before: FileStamp) -> None:
    """Put back the bytes from before the edits: by a cut where they only appended, else as a new file under the old name."""
    first = taken[0]
    if all(not edit.pieces and edit.kept == edit.old_size for edit in taken):
        _verify(source.slice(0, first.old_size), first, path)
        _cut(path, first.old_size, first.modified, before)
        return

    def verify(temporary: str) -> None:
        result = Source.open(temporary)
        try:
            _verify(result, first, path)
        finally:
            result.close()
        refuse_changed(path, before)

    write_overlay(_back(source, taken), path, like=path, replace=True, verify=verify, modified=first.modified)


def _back(source: Source, taken: tuple[Edit, ...]) -> Overlay:
    """The overlay that leads from the present bytes to those before the first of the edits."""
    overlay = undone(source, taken[-1])
    for edit in reversed(taken[:-1]):
        overlay = undone(overlay.source(), edit)
    return overlay


def _verify(result: Source, edit: Edit, path: str) -> None:
    if not is_at(result, edit.old_size, edit.old_marks) or (edit.sha256 is not None and digest(result) != edit.sha256):
        message = "the bytes from before the edit cannot be had back: the file was changed since"
        raise VerifyError(message, locator=path, hint="get the original again; nothing was changed")


def _by_mark(path: str, source: Source, before: FileStamp, *, last: bool) -> Undone:
    """Undo append-only edits by the marks that they left inside the archive."""
    size, count = source.size, 0
    while (smaller := size_before(source.slice(0, size))) is not None:
        size, count = smaller, count + 1
        if last:
            break
    if not count:
        raise EditError(
            "no undo record found",
            locator=path,
            hint=f"the record is the file {os.path.basename(path)}{undo_file.SUFFIX}",
        )
    _cut(path, size, None, before)
    return Undone(count, size, None)


def _cut(path: str, size: int, modified: int | None, before: FileStamp) -> None:
    """Cut the file: one step, done or not done."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            refuse_changed(path, before)
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if modified is not None:
            os.utime(path, ns=(os.stat(path).st_atime_ns, modified))
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", locator=path, hint="give a file that you may write to") from error
