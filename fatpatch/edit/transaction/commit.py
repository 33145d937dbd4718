"""An edit from plan to file: written beside, read again from scratch and checked, recorded, named; or only checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.copying import extents_of
from fatpatch.base.errors import EditError, FatpatchError, FormatError, InternalError, VerifyError
from fatpatch.base.limits import Limits
from fatpatch.base.locking import locked
from fatpatch.base.overlay import Overlay, same_bytes
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.host.tree import TreeEdit
from fatpatch.edit.references.parts import merged
from fatpatch.edit.transaction import undo_file
from fatpatch.edit.transaction.append import append, can_append
from fatpatch.edit.transaction.comparison import TreeComparison, compared
from fatpatch.edit.transaction.file_stamp import FileStamp, refuse_changed
from fatpatch.edit.transaction.undo_record import Edit, edit_of
from fatpatch.edit.transaction.undo_record import digest as digest_of
from fatpatch.edit.transaction.write import write_overlay
from fatpatch.model.tree import Node
from fatpatch.scan.walk import walked

Examine = Callable[[TreeComparison], Sequence[CheckResult]]
"""Called with the tree before and the one read from the result; says what must hold and whether it does."""


class Destination(NamedTuple):
    """Where the result goes. ``path`` None: nowhere, the plan alone is wanted. Without ``record`` it cannot be reverted."""

    path: str | None
    overwrite: bool = False
    record: bool = True


class EditedFile(NamedTuple):
    """What is edited: the file at ``path``, its tree ``node``, and the state that it had when it was opened."""

    path: str
    node: Node
    before: FileStamp


def commit(subject: EditedFile, edit: TreeEdit, to: Destination, examine: Examine, limit: int) -> tuple[CheckResult, ...]:
    """Check the edit and bring it to its destination; every check by name.

    EditError before anything is written, VerifyError when the result is not as planned; then, too, nothing is left behind.
    """
    path, node, before = subject
    run = _Run(path, node, edit, examine, limit)
    if to.path is None:
        run.verify(edit.overlay.source(), compare=False)
        return tuple(run.checks)
    if to.path != path:
        _refuse_foreign_record(to.path)
    with (
        locked(path) if to.path == path else nullcontext(),
        ThreadPoolExecutor(1) as beside,
    ):  # the old file is hashed while the new one is written and checked
        refuse_changed(path, before)
        edits = _edits_so_far(path, node.content, to)
        digest = beside.submit(digest_of, node.content) if to.record else None

        def edited() -> tuple[Edit, ...]:
            return () if digest is None else (*edits, edit_of(edit.overlay, before.modified, digest.result()))

        if to.path == path and to.record and can_append(edit):
            run.verify(edit.overlay.source(), compare=False)
            append(path, edit, before, lambda: undo_file.save(path, edited()), lambda: undo_file.save(path, edits))
        else:
            _write(run, before, edited, to)
    return tuple(run.checks)


def guarded(subject: EditedFile, work: Callable[[], None]) -> None:
    """Do the work; should it go wrong because the file was changed meanwhile, say that."""
    try:
        work()
    except (FormatError, VerifyError, InternalError):
        refuse_changed(subject.path, subject.before)
        raise


class _Run:
    """The verification of one result; keeps what it found."""

    def __init__(self, path: str, node: Node, edit: TreeEdit, examine: Examine, limit: int) -> None:
        self.path, self.node, self.edit, self.examine, self.limit = path, node, edit, examine, limit
        self.checks: list[CheckResult] = []

    def verify(self, result: Source, *, compare: bool) -> None:
        """Read the result from scratch and check it; VerifyError with every check that failed."""
        with walked(result, self.node.locator, path=self.path, limits=Limits(image=self.limit)) as new:
            self.checks = [*self.examine(compared(self.node, new, self.edit.moves))]
            if compare:
                self.checks.append(_old_bytes(self.edit.overlay, result))
        failed = [check for check in self.checks if not check.ok]
        if failed:
            words = "; ".join(f"{check.name}: {check.detail}" for check in failed)
            raise VerifyError(
                f"the result is not as planned, nothing was written: {words}",
                locator=self.path,
                hint="if 'fatpatch verify' calls the file sound, this is a bug: please report it",
            )


def _write(run: _Run, before: FileStamp, edited: Callable[[], tuple[Edit, ...]], to: Destination) -> None:
    assert to.path is not None
    path = to.path
    first = path == run.path or not os.path.lexists(path)  # the record of another file of that name is needed until that is replaced
    edits: list[tuple[Edit, ...]] = []

    def verify(temporary: str) -> None:
        result = Source.open(temporary)
        try:
            run.verify(result, compare=True)
        finally:
            result.close()
        edits.append(edited())
        refuse_changed(run.path, before)
        if first and to.record:  # should we die in between, the record is known to be of an edit not begun
            undo_file.save(path, edits[0])

    write_overlay(run.edit.overlay, path, like=run.path, replace=path == run.path or to.overwrite, verify=verify)
    if not (first and to.record):
        undo_file.save(path, edits[0])


def _refuse_foreign_record(path: str) -> None:
    """EditError when the place of the result's record is taken by another kind of file."""
    try:
        undo_file.load(path)
    except FatpatchError as error:
        hint = "choose another name for the result"
        raise EditError("is there already, and is not a fatpatch undo record", locator=undo_file.path_beside(path), hint=hint) from error


def _edits_so_far(path: str, source: Source, to: Destination) -> tuple[Edit, ...]:
    """The edits that the file carries, to be kept with the new one; for another file those of a stale record do not matter."""
    try:
        return undo_file.refuse_cut_off(source, undo_file.load(path), path)
    except FatpatchError:
        if to.path == path:
            raise
        return ()


def _old_bytes(overlay: Overlay, result: Source) -> CheckResult:
    """Old bytes outside the plan are as before. Not asked where they were not copied: there nothing writes to them."""
    name = "old bytes unchanged outside the plan"
    if overlay.kept == 0:
        return check_of(name, [])
    data, at, following = _with_data(overlay.base, result), 0, 0
    for write in (*overlay.writes, None):
        end = overlay.kept if write is None else write.offset
        while following and data[following - 1][1] > at:  # a part may reach over several writes
            following -= 1
        while following < len(data) and data[following][0] < end:
            first, last = max(data[following][0], at), min(data[following][1], end)
            if first < last and not same_bytes(overlay.base.slice(first, last - first), result.slice(first, last - first)):
                return check_of(name, [f"bytes between {first:#x} and {last:#x} differ"])
            following += 1
        at = end if write is None else write.end
    return check_of(name, [])


def _with_data(base: Source, result: Source) -> list[tuple[int, int]]:
    """The parts that are not holes in both files, ascending and apart: holes need not be read to be equal."""
    parts = list[tuple[int, int]]()
    for source in (base, result):
        if source.path is None or source.base:
            return [(0, base.size)]
        with open(source.path, "rb") as stream:
            parts += extents_of(stream.fileno(), source.size)
    return merged(parts)
