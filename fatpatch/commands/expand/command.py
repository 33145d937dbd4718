"""``fatpatch expand``: concatenated entries written as plain ones."""

from __future__ import annotations

import click

from fatpatch.api.rewrites import expanding
from fatpatch.commands._shared.editing import EditRequest, edit_options, rewrite
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import image_limit_option


@click.command("expand", cls=Grouped)
@click.argument("file")
@edit_options
@image_limit_option
def command(file: str, given: EditRequest, max_image_size: int) -> int:
    """Rewrite concatenated entries as plain entries.

    Drivers up to 580 ignore concatenated entries (kind 0x100) and report "no kernel image is available" although the image is there.
    """
    edit = given.choices(max_image_size)
    return rewrite("expand", file, given, edit, expanding(edit))
