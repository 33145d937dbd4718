"""``fatpatch verify``: whether a file is sound, and, after an edit, as its record says."""

from __future__ import annotations

import json
import sys

import click

from fatpatch import __version__
from fatpatch.api.editing import verify_unit
from fatpatch.api.naming import UnitReader
from fatpatch.base.errors import UnsupportedError
from fatpatch.base.words import plural, safe
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.naming import named_units, naming_options
from fatpatch.commands._shared.options import image_size_option, limits_from
from fatpatch.commands._shared.progress import watched
from fatpatch.commands._shared.standard_input import InputFile

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
    unit = named_units([file])[0]
    found = verify_unit(unit, UnitReader(limits_from(max_image_size), progress=watched), independent=independent)
    if form == "json":
        document = {
            "schema": SCHEMA,
            "tool_version": __version__,
            "path": unit.shown,
            "ok": bool(found),
            "not_read": [{"locator": item.locator, "message": item.message} for item in found.not_read],
            "checks": [check._asdict() for check in found.checks],
        }
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        for name, files in found.held:
            sys.stdout.write(f"ok      {name} ({plural(files, 'file')})\n")
        for check in found.checks:
            if not (check.ok and found.held):
                why = f": {safe(check.detail)}" if check.detail else ""
                sys.stdout.write(f"{'ok    ' if check.ok else 'FAILED'}  {safe(check.name)}{why}\n")
        for item in found.not_read:
            sys.stdout.write(f"not read  {safe(item.locator)}: {safe(item.message)}\n")
        empty = "" if found.gpu_code else ", but holds no GPU code" if not found.not_read else " as far as it is read"
        line = f"{safe(unit.shown)} is {'sound' if found else 'NOT sound'}{empty}"
        quiet.verdict(line)
        sys.stdout.write(f"{line}\n")
    return 1 if not found else UnsupportedError.exit_code if found.not_read else 0
