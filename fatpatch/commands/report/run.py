"""One run of ``report``: read, render, write the page whole."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from fatpatch.api.contents import contents
from fatpatch.api.gate import PolicyRequest, policy_for
from fatpatch.api.judging import compared
from fatpatch.api.naming import NamedUnit, files_of
from fatpatch.base.errors import EditError, FormatError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import safe
from fatpatch.base.writing import write_file
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands.report.text import diff_page, report


class PageRequest(NamedTuple):
    """The page to write."""

    path: str
    title: str | None
    force: bool

    def check(self) -> PageRequest:
        """Refuse what is there already before anything is read."""
        if os.path.lexists(self.path) and not self.force:
            raise EditError("exists already", locator=self.path, hint="give another name, or --overwrite")
        return self

    def write(self, text: str) -> None:
        """Write the page whole."""
        write_file(self.path, [text.encode("utf-8", "backslashreplace")], replace=self.force)
        quiet.note(f"wrote {self.path}")


def page(units: Sequence[NamedUnit], target: PageRequest, policy: str | None, limits: Limits, jobs: int | None) -> int:
    """Write the page of some files; the exit code is 1 when something in them could not be read."""
    held = policy_for(PolicyRequest(), policy, look=True)
    inputs = files_of(units)
    with Progress(units[0].shown) as progress:
        found = contents(inputs, held, limits, jobs=jobs, on_read=progress.at)
    unread = [finding for finding in found.findings if finding.rule in ("FP001", "FP002", "FP003")]
    if not found.holders and not unread:
        message = "no file holds GPU code: there is nothing to show"
        raise InputError(message, locator=units[0].shown, hint="look whether the right files were given")
    target.write(report(found, target.title))
    for finding in unread:
        click.echo(safe(f"fatpatch: {finding.rule} {finding.locator}: {finding.message}"), err=True)
    codes = [InputError.exit_code if finding.rule == "FP001" else FormatError.exit_code for finding in unread]
    return max(codes, key=lambda code: code == InputError.exit_code, default=0)


def compare_page(old: NamedUnit, new: NamedUnit, target: PageRequest, limits: Limits, jobs: int | None) -> int:
    """Write the page of two releases; the exit code says whether all of them could be read."""
    with Progress(f"{old.shown}, {new.shown}") as progress:
        found = compared(old, new, limits, jobs=jobs, on_read=progress.at).facts
    target.write(diff_page(found, target.title))
    loop = FileLoop()
    loop.tell(found.diagnostics)
    for error in found.errors:
        loop.failed(error)
    return loop.code
