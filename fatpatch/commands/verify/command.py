"""``fatpatch verify``: whether a file is sound, and, after an edit, as its record says."""

from __future__ import annotations

import json
import os
import sys

import click

from fatpatch import __version__
from fatpatch.base.checks import CheckResult
from fatpatch.base.errors import UnsupportedError
from fatpatch.base.words import safe
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.naming import named_units, naming_options
from fatpatch.commands._shared.options import image_size_option, limits_from
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.standard_input import InputFile
from fatpatch.edit.verify import independently, soundness
from fatpatch.model.tree import Diagnostic
from fatpatch.remote.address import scheme_of
from fatpatch.scan.coverage import parts_not_read, payloads_below
from fatpatch.scan.walk import inspected

SCHEMA = "fatpatch.verify/1"


@click.command("verify")
@click.argument("file", type=InputFile(), metavar="FILE")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
@click.option("--independent", is_flag=True, help="Use LIEF alone to read ELF and PE files; after an edit, compare with the original.")
@naming_options
@image_size_option
def command(file: str, form: str, independent: bool, max_image_size: int) -> int:
    """Verify that a file, folder or package is well-formed.

    Reads every container, fatbin and image of FILE; after an edit, checks the undo record. The exit code is 1 when something is
    malformed and 5 when a part was recognized but not read.
    """
    from fatpatch.named.unit import files_of

    unit = named_units([file])[0]
    shown = unit.shown
    limits = limits_from(max_image_size)
    checks: list[CheckResult] = []
    unread: list[Diagnostic] = []
    payloads = False
    several = unit.whole or unit.distribution is not None
    for each in files_of([unit]):
        path = each.path if scheme_of(each.path) else os.path.realpath(each.path)
        name = os.path.basename(each.shown)
        with Progress(each.shown) as progress, inspected(path, name=name, limits=limits, keep_bytes=True, progress=progress.at) as node:
            found = list(independently(path, node) if independent else soundness(path, node, limits))
            checks += [check._replace(name=f"{each.shown}: {check.name}") for check in found] if several else found
            payloads = payloads or any(payloads_below(node))
            unread += parts_not_read(node)
    sound = all(check.ok for check in checks)
    if form == "json":
        document = {
            "schema": SCHEMA,
            "tool_version": __version__,
            "path": shown,
            "ok": sound,
            "not_read": [{"locator": item.locator, "message": item.message} for item in unread],
            "checks": [check._asdict() for check in checks],
        }
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        for check in checks:
            sys.stdout.write(
                f"{'ok    ' if check.ok else 'FAILED'}  {safe(check.name)}{': ' + safe(check.detail) if check.detail else ''}\n"
            )
        for item in unread:
            sys.stdout.write(f"not read  {safe(item.locator)}: {safe(item.message)}\n")
        empty = "" if payloads else ", but holds no GPU code" if not unread else " as far as it is read"
        line = f"{safe(shown)} is {'sound' if sound else 'NOT sound'}{empty}"
        quiet.verdict(line)
        sys.stdout.write(f"{line}\n")
    return 1 if not sound else UnsupportedError.exit_code if unread else 0
