"""The way back: the original bytes, verified before they take the file's name."""

from __future__ import annotations

import os
from typing import NamedTuple

from fatpatch.edits import record
from fatpatch.edits.overlay import Overlay
from fatpatch.edits.state import refuse_changed, state_of
from fatpatch.edits.trailer import size_before
from fatpatch.edits.write import write_overlay
from fatpatch.errors import EditError, InputError, VerifyError
from fatpatch.source import Source


class Undone(NamedTuple):
    """How many edits were taken back, the size now, and its sha256 where it was recorded."""

    edits: int
    size: int
    sha256: str | None
    how: str


def undo(path: str, *, last: bool = False) -> Undone:
    """Give the file at ``path`` back the bytes it had before its edits, or before the last one.

    EditError when there is no record, or the file is no longer what the record describes.
    """
    path = os.path.realpath(path)
    before = state_of(path)
    source = Source.open(path)
    try:
        recorded = record.load(path)
        if not _is_finished(source, recorded):
            return _cut_off(path, source, recorded, last=last)
        edits = record.current(source, recorded, path)
        if not edits:
            return _by_mark(path, source, last=last)
        taken = edits[-1:] if last else edits
        overlay, size = _back(source, taken)
        first = taken[0]
        how = "cut to its old size"
        if all(not edit.pieces and edit.kept == edit.old_size for edit in taken):
            _verify(source.slice(0, first.old_size), first, path)
            refuse_changed(path, before)
            _cut(path, first.old_size, first.modified)
        else:
            how = "written anew"

            def verify(temporary: str) -> None:
                result = Source.open(temporary)
                try:
                    _verify(result, first, path)
                finally:
                    result.close()
                refuse_changed(path, before)

            write_overlay(overlay, path, like=path, replace=True, verify=verify, modified=first.modified)
        record.save(path, edits[: len(edits) - len(taken)])
        return Undone(len(taken), size, first.sha256, how)
    finally:
        source.close()


def _back(source: Source, taken: tuple[record.Edit, ...]) -> tuple[Overlay, int]:
    """The overlay that leads from the present bytes to those before the first of the edits."""
    overlay = record.undone(source, taken[-1])
    for edit in reversed(taken[:-1]):
        overlay = record.undone(overlay.source(), edit)
    return overlay, taken[0].old_size


def _verify(result: Source, edit: record.Edit, path: str) -> None:
    if not record.is_at(result, edit.old_size, edit.old_marks) or (edit.sha256 is not None and record.digest(result) != edit.sha256):
        message = "the bytes from before the edit cannot be had back: the file was changed since"
        raise VerifyError(message, locator=path, hint="get the original again; nothing was changed")


def _is_finished(source: Source, edits: tuple[record.Edit, ...]) -> bool:
    pending = record.unfinished(source, edits)
    return pending is None or record.is_at(source, pending.new_size, pending.new_marks)


def _cut_off(path: str, source: Source, edits: tuple[record.Edit, ...], *, last: bool) -> Undone:
    """Take off what an interrupted append has left, then go on with the edits before it."""
    pending, before = edits[-1], edits[:-1]
    state = state_of(path)
    _verify(source.slice(0, pending.old_size), pending, path)
    refuse_changed(path, state)
    _cut(path, pending.old_size, pending.modified)
    record.save(path, before)
    if before and not last:
        rest = undo(path)
        return rest._replace(edits=rest.edits + 1)
    return Undone(1, pending.old_size, pending.sha256, "an interrupted append taken off")


def _by_mark(path: str, source: Source, *, last: bool) -> Undone:
    """Undo append-only edits by the marks that they left inside the archive."""
    size, count = source.size, 0
    while (before := size_before(source.slice(0, size))) is not None:
        size, count = before, count + 1
        if last:
            break
    if not count:
        raise EditError(
            "was not edited by fatpatch, or its record is gone",
            locator=path,
            hint=f"the record is the file {os.path.basename(path)}{record.SUFFIX}",
        )
    _cut(path, size, None)
    return Undone(count, size, None, "cut to its old size, by the mark in the archive")


def _cut(path: str, size: int, modified: int | None) -> None:
    """Cut the file: one step, done or not done."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if modified is not None:
            os.utime(path, ns=(os.stat(path).st_atime_ns, modified))
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", locator=path, hint="give a file that you may write to") from error
