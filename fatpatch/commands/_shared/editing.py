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

from fatpatch.api.edit_run import Destination, FileToEdit, GraftedFile, PlanOf, RewrittenFile, rewritten
from fatpatch.api.naming import refuse_address
from fatpatch.api.options import EditChoices
from fatpatch.base.errors import EditError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.commands._shared.options import limits_from, shown_paths
from fatpatch.commands._shared.progress import Progress


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

    def choices(self, max_image_size: int) -> EditChoices:
        """What to edit of the file, as the library takes it."""
        return EditChoices(self.modules, self.members, self.drop_signature, limits_from(max_image_size))

    def show(self, found: RewrittenFile | GraftedFile, indent: int | None = 1) -> None:
        """Print what was done, or would be."""
        if self.form == "json":
            sys.stdout.write(json.dumps(found.to_dict(), indent=indent) + "\n")
        else:
            sys.stdout.writelines(f"{line}\n" for line in found.lines(verbose=self.verbose))


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
def file_to_edit(path: str, to: Destination, limits: Limits) -> Iterator[FileToEdit]:
    """The file with a line of progress; EditError when the place of the result is taken."""
    if to.path is not None and to.path != os.path.realpath(path) and os.path.lexists(to.path):
        if not os.path.isfile(to.path):
            raise EditError("is not a regular file", locator=to.path, hint="give the name of the new file")
        if not to.overwrite:
            raise EditError("exists already", locator=to.path, hint="choose another name, or --overwrite to replace it")
    shown = shown_paths([path])[0]
    with Progress(shown) as progress:
        yield FileToEdit(path, shown, to, limits, progress.at)


def rewrite(command: str, path: str, given: EditRequest, edit: EditChoices, plan_of: PlanOf) -> int:
    """Plan and carry out an edit that takes nothing from outside, and tell it; the exit code."""
    to = given.destination(path)
    refuse_address(path)
    with file_to_edit(path, to, edit.limits or Limits()) as file:
        given.show(rewritten(command, file, plan_of))
    return 0
