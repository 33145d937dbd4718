"""What the commands that change a file share: where the result goes, the file as it is read, and what to say of names and links."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from fatpatch import __version__
from fatpatch.base.errors import EditError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.overlay import Overlay
from fatpatch.base.records import NamedTuple
from fatpatch.base.shell_word import shell_word
from fatpatch.commands._shared.options import limits_from, shown_paths
from fatpatch.commands._shared.progress import Progress as ProgressLine
from fatpatch.edit.report import EditReport, edit_json, edit_text
from fatpatch.edit.rewrite.rewrite_modules import RewritePlan, renew
from fatpatch.edit.transaction import undo_file as journal
from fatpatch.edit.transaction.commit import Destination, EditedFile
from fatpatch.edit.transaction.file_stamp import state_of
from fatpatch.edit.transaction.write import write_overlay
from fatpatch.hostcode.llamafile import notes_for
from fatpatch.model.tree import Node
from fatpatch.remote.opening import refuse_address
from fatpatch.scan.walk import Progress, inspected


class Opened(NamedTuple):
    """The file to edit: as it was given, how it is shown, and as it was read; ``links``: how many names it had.

    ``progress`` is told where the work is.
    """

    path: str
    shown: str
    subject: EditedFile
    links: int
    progress: Progress


class EditRequest(NamedTuple):
    """What the options of ``edit_options`` say: where the result goes, what to look at, how to tell it."""

    output: str | None
    in_place: bool
    dry_run: bool
    overwrite: bool
    no_undo: bool
    modules: tuple[str, ...]
    members: tuple[str, ...]
    drop_signature: bool
    form: str
    verbose: bool

    def destination(self, path: str) -> Destination:
        """A usage error when the options do not say it, or contradict each other."""
        if bool(self.output) + self.in_place + self.dry_run == 0:
            raise click.UsageError("name the output: -o OUT, --in-place, or --dry-run to write nothing")
        if self.output and self.in_place:
            raise click.UsageError("-o and --in-place exclude each other")
        if self.output is not None and same_file(self.output, path):
            raise click.UsageError("-o names FILE itself: use --in-place")
        target = None if self.dry_run else os.path.realpath(path) if self.in_place else self.output
        return Destination(target, self.overwrite, not self.no_undo)


def edit_options(command: Callable[..., int]) -> Callable[..., int]:
    """-o, --in-place, --dry-run, --overwrite, --no-undo, --module, --member, --drop-signature, --format and -v, as one ``given``."""

    @functools.wraps(command)
    def gathered(**values: Any) -> int:
        given = EditRequest(*(values.pop(field) for field in EditRequest._fields))
        return command(given=given, **values)

    result: Callable[..., int] = gathered
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="List every module and every check."),
        click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format."),
        click.option("--drop-signature", is_flag=True, help="PE: remove the Authenticode signature, which an edit invalidates."),
        click.option("--member", "members", multiple=True, metavar="PATH", help="Edit only this archive member, * allowed. Repeatable."),
        click.option(
            "--module",
            "modules",
            multiple=True,
            metavar="LOCATOR",
            help="Edit only this module: a locator or its end, * allowed. Repeatable.",
        ),
        click.option("--no-undo", is_flag=True, help="Do not write an undo record: the edit cannot be reverted."),
        click.option("--overwrite", is_flag=True, help="Overwrite an existing output file."),
        click.option("--dry-run", is_flag=True, help="Plan and verify without writing."),
        click.option("--in-place", is_flag=True, help="Edit FILE itself; 'fatpatch undo FILE' reverts it."),
        click.option("-o", "--output", metavar="OUT", help="Write the result to a new file."),
    ):
        result = option(result)
    return result


def same_file(first: str, second: str) -> bool:
    """Whether two paths lead to one file."""
    return os.path.realpath(first) == os.path.realpath(second)


@contextmanager
def opened(path: str, to: Destination, limits: Limits) -> Iterator[Opened]:
    """The file as it is read now; EditError when the place of the result is taken."""
    shown = shown_paths([path])[0]
    if to.path is not None and to.path != os.path.realpath(path) and os.path.lexists(to.path):
        if not os.path.isfile(to.path):
            raise EditError("is not a regular file", locator=to.path, hint="give the name of the new file")
        if not to.overwrite:
            raise EditError("exists already", locator=to.path, hint="choose another name, or --overwrite to replace it")
    real = os.path.realpath(path)
    before, links = state_of(real), os.stat(real).st_nlink
    with ProgressLine(shown) as progress, inspected(real, name=file_name(shown), limits=limits, progress=progress.at) as node:
        yield Opened(path, shown, EditedFile(real, node, before), links, progress.at)


def notes_on(file: Opened, to: Destination, members: list[str]) -> list[str]:
    """What to say of the file's names, and of copies that a llamafile makes of its members."""
    notes = notes_for(file.subject.node, members)
    real = file.subject.path
    if real != os.path.abspath(file.path) and to.path == real:
        notes.append(f"{file.shown} is a link: the file it leads to was changed")
    if to.path == real and file.links > 1 and os.stat(real).st_ino != file.subject.before.inode:
        notes.append(f"{file.shown} had {file.links} names (hard links): the others still hold the old bytes")
    return notes


def written(file: Opened, to: Destination, *, changed: bool) -> tuple[str | None, str | None]:
    """The name of the result, and the command that takes the edit back; None where there is none."""
    if not changed or to.path is None:
        return None, None
    output = file.path if to.path == file.subject.path else to.path
    return output, f"fatpatch undo {shell_word(output)}" if to.record else None


def renewed(command: str, file: str, given: EditRequest, plan_of: Callable[[Node, Progress], RewritePlan], max_image_size: int) -> int:
    """Plan and carry out an edit that takes nothing from outside, and tell it; the exit code."""
    to = given.destination(file)
    refuse_address(file)
    had_record = to.path is not None and os.path.lexists(journal.path_beside(to.path))
    with opened(file, to, limits_from(max_image_size)) as source:
        plan = plan_of(source.subject.node, source.progress)
        done = renew(source.subject, plan, to, max_image_size)
        copied = plan.edit is None and to.path is not None and to.path != source.subject.path
        if copied:
            _copy(source.subject, to)
        notes = [*plan.notes, *notes_on(source, to, [] if plan.edit is None else list(plan.edit.members))]
        output, undo = written(source, to, changed=plan.edit is not None)
    if had_record and not to.record and plan.edit is not None:
        notes.append("the record of earlier edits was removed, too: they cannot be reverted")
    record = os.path.getsize(journal.path_beside(to.path)) if undo is not None and to.path is not None else None
    told = EditReport(
        command, source.shown, output, undo, tuple(dict.fromkeys(notes)), to.path is None, record, to.path if copied else None
    )
    if given.form == "json":
        document: dict[str, Any] = edit_json(plan, done, told, __version__)
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        for line in edit_text(plan, done, told, verbose=given.verbose):
            sys.stdout.write(line + "\n")
    return 0


def _copy(subject: EditedFile, to: Destination) -> None:
    """The file itself as the result, where there is nothing to change: whoever asked for a file is given one."""
    assert to.path is not None
    write_overlay(Overlay.of(subject.node.content, ()), to.path, like=subject.path, replace=to.overwrite, verify=lambda _: None)
    journal.save(to.path, ())
