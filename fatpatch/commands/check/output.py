"""The result of ``check`` in the formats that were asked for: one on standard output, others in files, from one run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from fatpatch.base.records import NamedTuple
from fatpatch.commands._shared.typed import OptionType

if TYPE_CHECKING:
    from fatpatch.api.gate import Check

_START = 8
FORMATS = ("text", "json", "sarif", "junit", "github")


class ReportFile(OptionType[tuple[str, str]]):
    """``FORMAT=FILE``: (format, path)."""

    name = "format=file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        form, _, path = str(value).partition("=")
        if form not in FORMATS or not path:
            self.fail(f"expected FORMAT=FILE with one of {', '.join(FORMATS)}, got {value!r}", param, ctx)
        return form, path


class Checked(NamedTuple):
    """What a run found, and how much of it to show."""

    found: Check
    verbose: bool

    def rendered(self, form: str) -> str:
        """The whole result in one format."""
        if form == "json":
            return json.dumps(self.found.to_dict(), indent=1) + "\n"
        if form == "sarif":
            from fatpatch.commands.check.sarif import sarif

            return json.dumps(sarif(self.found.facts, failed=not self.found), indent=1) + "\n"
        if form == "junit":
            from fatpatch.commands.check.junit import junit

            return junit(self.found.facts, self.found.fail_on)
        from fatpatch.commands.check import text as check

        lines: Iterable[str] = check.github(self.found.facts, failed=not self.found)
        if form == "text":
            lines = check.text(self.found.facts, self.found.policy, failed=not self.found, verbose=self.verbose)
        return "".join(f"{line}\n" for line in lines)

    def write(self, form: str, path: str) -> None:
        """Write one format to a file. EditError when it exists and is no report of an earlier run, which alone is replaced."""
        from fatpatch.base.errors import EditError
        from fatpatch.base.writing import write_file

        data = self.rendered(form).encode("utf-8", "backslashreplace")
        if os.path.lexists(path) and not _begins_as(path, data):
            raise EditError(f"exists already and is not a {form} report", locator=path, hint="choose another name for --report")
        write_file(path, [data], replace=True, sync=False)

    def write_summary(self) -> None:
        """Append to the summary of the GitHub job, where there is one."""
        from fatpatch.commands.check.text import summary

        path = os.environ.get("GITHUB_STEP_SUMMARY")
        if path:
            with open(path, "a", encoding="utf-8") as sink:
                sink.writelines(f"{line}\n" for line in summary(self.found.facts, failed=not self.found))


def _begins_as(path: str, data: bytes) -> bool:
    """Whether a file begins with the same bytes, such as ``<?xml ve`` of a JUnit report."""
    try:
        with open(path, "rb") as stream:
            return stream.read(_START) == data[:_START]
    except OSError:
        return False
