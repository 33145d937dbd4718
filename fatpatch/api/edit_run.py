"""One edit of a file from end to end, for the Python interface and the commands alike: read, planned, written, and what to tell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from fatpatch import __version__
from fatpatch.api.file import paths_of
from fatpatch.api.options import GraftChoices
from fatpatch.base.errors import EditError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.overlay import Overlay
from fatpatch.base.records import NamedTuple
from fatpatch.base.shell_word import shell_word
from fatpatch.edit.graft.plan import GraftRequest
from fatpatch.edit.graft.retag import Retag
from fatpatch.edit.graft.run import GraftResult, graft
from fatpatch.edit.graft.text import graft_json, graft_text
from fatpatch.edit.host.host import Options
from fatpatch.edit.host.tree import TreeEdit
from fatpatch.edit.payload.new_image import ImageToAdd, cubin_image, hsaco_image, images_from, ptx_image
from fatpatch.edit.report import EditReport, edit_json, edit_text
from fatpatch.edit.rewrite.rewrite_modules import Renewed, RewritePlan, renew
from fatpatch.edit.transaction import undo_file
from fatpatch.edit.transaction.commit import Destination, EditedFile
from fatpatch.edit.transaction.file_stamp import state_of
from fatpatch.edit.transaction.write import write_overlay
from fatpatch.hostcode.llamafile import is_llamafile, library_copies, notes_for, renews_copies
from fatpatch.model.tree import Node
from fatpatch.named.reading import silent
from fatpatch.remote.opening import refuse_address
from fatpatch.scan.walk import Progress, inspected

__all__ = [
    "Destination",
    "FileToEdit",
    "GraftRequest",
    "GraftedFile",
    "Options",
    "Own",
    "PlanOf",
    "Prepare",
    "Retag",
    "RewrittenFile",
    "extracted_copies",
    "grafted",
    "images_given",
    "rewritten",
]

Own = tuple[tuple[str, ImageToAdd], ...]
PlanOf = Callable[[Node, Progress | None], RewritePlan]
"""From the file to the plan of its edit."""

Prepare = Callable[[Node], tuple[Own, list[str]]]
"""From the file to the images that its own PTX gives, each with the locator of its module, and what to warn of."""


class FileToEdit(NamedTuple):
    """``path`` as it was given, ``shown`` as its user knows it; ``to``: where the result goes; ``progress`` is told what is read."""

    path: str
    shown: str
    to: Destination
    limits: Limits
    progress: Progress | None = None


class _FileAtHand(NamedTuple):
    """The file as it was read; ``links``: how many names it had; ``recorded``: the place of the result has a record of earlier edits."""

    file: FileToEdit
    subject: EditedFile
    links: int
    recorded: bool


class RewrittenFile(NamedTuple):
    """What pruning, recompressing or expanding a file came to."""

    plan: RewritePlan
    done: Renewed
    report: EditReport

    def to_dict(self) -> dict[str, Any]:
        """The document of schema fatpatch.edit/1."""
        return edit_json(self.plan, self.done, self.report, __version__)

    def lines(self, *, verbose: bool) -> Iterator[str]:
        """The text that a command prints."""
        return edit_text(self.plan, self.done, self.report, verbose=verbose)


class GraftedFile(NamedTuple):
    """What a graft came to; ``output``: the name of the result, ``undo``: the command that takes it back, None where there is none."""

    outcome: GraftResult
    output: str | None
    undo: str | None
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The document of schema fatpatch.graft/1."""
        return graft_json(self.outcome, self.output, self.undo, self.notes, __version__)

    def lines(self, *, verbose: bool) -> Iterator[str]:
        """The text that a command prints."""
        return graft_text(self.outcome, self.output, self.undo, self.notes, verbose=verbose)


def rewritten(command: str, file: FileToEdit, plan_of: PlanOf) -> RewrittenFile:
    """Plan and carry out an edit that takes nothing from outside. Where there is nothing to do, a new file is a copy of the old one.

    EditError when it is refused, VerifyError when the result is not as planned; nothing is left behind then.
    """
    to = file.to
    with _opened(file) as source:
        plan = plan_of(source.subject.node, file.progress)
        done = renew(source.subject, plan, to, file.limits.image)
        copied = to.path if plan.edit is None and to.path != source.subject.path else None
        if copied is not None:
            write_overlay(
                Overlay.of(source.subject.node.content, ()), copied, like=source.subject.path, replace=to.overwrite, verify=lambda _: None
            )
            undo_file.save(copied, ())
        notes = [*plan.notes, *_notes(source, plan.edit)]
        output, undo = _written(source, changed=plan.edit is not None)
    record = os.path.getsize(undo_file.path_beside(to.path)) if undo is not None and to.path is not None else None
    report = EditReport(command, file.shown, output, undo, tuple(dict.fromkeys(notes)), to.path is None, record, copied)
    return RewrittenFile(plan, done, report)


def grafted(
    file: FileToEdit, images: Sequence[ImageToAdd], request: GraftRequest, driver: str | None, prepare: Prepare | None = None
) -> GraftedFile:
    """Plan and carry out a graft; the effect is told for ``driver``. Errors as those of ``rewritten``."""
    with _opened(file) as source:
        warnings: list[str] = []
        if prepare is not None:
            own, warnings = prepare(source.subject.node)
            request = request._replace(own=own)
        outcome = graft(source.subject, images, request, file.to, driver)
        notes = [*warnings, *_notes(source, outcome.plan.edit)]
        return GraftedFile(outcome, *_written(source, changed=outcome.plan.edit is not None), notes)


@contextmanager
def images_given(
    given: GraftChoices,
    limits: Limits,
    watched: Callable[[str], AbstractContextManager[Progress]] = silent,
    shown: Callable[[str], str] = str,
) -> Iterator[list[ImageToAdd]]:
    """The images to graft, by the files that hold them, which are open inside the block. ``shown``: how messages name a donor.

    ``watched`` is entered for each donor and gives what is called while it is read.
    """
    limit = limits.image
    with ExitStack() as stack:
        images = [hsaco_image(path, limit) for path in paths_of(given.hsaco)]
        images += [cubin_image(path, limit) for each in paths_of(given.cubins) for path in _cubins_of(each)]
        images += [ptx_image(path, limit) for path in paths_of(given.ptx)]
        donors: list[tuple[str, Sequence[str]]] = [(path, ()) for path in paths_of(given.fatbins)]
        if given.donor is not None:
            donors.append((os.fspath(given.donor), given.targets))
        for path, targets in donors:
            progress = stack.enter_context(watched(path))
            node = stack.enter_context(inspected(path, limits=limits, progress=progress))
            images += images_from(node, targets, limit, shown=shown(path))
        yield images


def extracted_copies(path: str, limits: Limits) -> list[str]:
    """The copies of a llamafile's GPU libraries that it extracted; EditError when there are none."""
    with inspected(path, limits=limits) as node:
        if not is_llamafile(node):
            hint = "give the llamafile, or graft into the file itself with --in-place"
            raise EditError("is not a llamafile with a GPU library inside", locator=path, hint=hint)
        if renews_copies(node):
            hint = "graft into the llamafile itself, with -o OUT"
            raise EditError("renews its extracted copy at every start, so a change there would not last", locator=path, hint=hint)
        found = [copy for _, copies in library_copies(node) for copy in copies]
    if not found:
        hint = "graft into the llamafile itself, with -o OUT"
        raise EditError("no extracted copy of its GPU library is on this machine", locator=path, hint=hint)
    return found


def _cubins_of(path: str) -> list[str]:
    """A cubin, or all those in a folder, as 'fatpatch retarget -o' writes it."""
    if not os.path.isdir(path):
        return [path]
    found = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(".cubin"))
    if not found:
        raise InputError("holds no .cubin", locator=path, hint="give a cubin, or the folder that 'fatpatch retarget -o' wrote")
    return found


@contextmanager
def _opened(file: FileToEdit) -> Iterator[_FileAtHand]:
    refuse_address(file.path)
    real = os.path.realpath(file.path)
    before, links = state_of(real), os.stat(real).st_nlink
    recorded = file.to.path is not None and os.path.lexists(undo_file.path_beside(file.to.path))
    with inspected(real, name=file_name(file.shown), limits=file.limits, progress=file.progress) as node:
        yield _FileAtHand(file, EditedFile(real, node, before), links, recorded)


def _notes(source: _FileAtHand, edit: TreeEdit | None) -> list[str]:
    """What to say of the file's names, of its record, and of copies that a llamafile makes of its members."""
    file, subject = source.file, source.subject
    notes = notes_for(subject.node, [] if edit is None else list(edit.members))
    if subject.path != os.path.abspath(file.path) and file.to.path == subject.path:
        notes.append(f"{file.shown} is a link: the file it leads to was changed")
    if file.to.path == subject.path and source.links > 1 and os.stat(subject.path).st_ino != subject.before.inode:
        notes.append(f"{file.shown} had {source.links} names (hard links): the others still hold the old bytes")
    if source.recorded and edit is not None and not file.to.record:
        notes.append("the record of earlier edits was removed, too: they cannot be reverted")
    return notes


def _written(source: _FileAtHand, *, changed: bool) -> tuple[str | None, str | None]:
    """The name of the result, and the command that takes the edit back."""
    to = source.file.to
    if not changed or to.path is None:
        return None, None
    output = source.file.path if to.path == source.subject.path else to.path
    return output, f"fatpatch undo {shell_word(output)}" if to.record else None
