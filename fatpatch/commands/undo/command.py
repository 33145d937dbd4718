"""``fatpatch undo``: the original bytes back."""

from __future__ import annotations

import os
import sys

import click

from fatpatch.api.editing import undo, undo_folder
from fatpatch.api.naming import refuse_address
from fatpatch.base.words import plural, safe, size
from fatpatch.commands._shared.options import shown_paths


@click.command("undo")
@click.argument("file")
@click.option("--last", is_flag=True, help="Revert only the last edit.")
def command(file: str, last: bool) -> int:
    """Restore FILE's original contents.

    Reverts all edits made by fatpatch, byte for byte, from the record beside the file or inside the archive. FILE may be a folder that
    'fatpatch slim' has edited in place: all its files are restored."""
    refuse_address(file)
    if os.path.isdir(file):
        if last:
            raise click.UsageError("--last is for one file; a folder is restored as a whole")
        count = undo_folder(file)
        sys.stdout.write(f"{safe(shown_paths([file])[0])}  restored {plural(count, 'file')}\n")
        return 0
    result = undo(file, last=last)
    digest = f", sha256 {result.sha256}" if result.sha256 else ""
    sys.stdout.write(f"{safe(shown_paths([file])[0])}  reverted {plural(result.edits, 'edit')}: {size(result.size)}{digest}\n")
    return 0
