"""``fatpatch expand``: concatenated entries written as plain ones."""

from __future__ import annotations

import click

from fatpatch.commands._shared.editing import EditRequest, edit_options, rewrite
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import image_limit_option
from fatpatch.edit.host.host import Options
from fatpatch.edit.rewrite.expand import ExpandRequest, plan_expand


@click.command("expand", cls=Grouped)
@click.argument("file")
@edit_options
@image_limit_option
def command(file: str, given: EditRequest, max_image_size: int) -> int:
    """Rewrite concatenated entries as plain entries.

    Drivers up to 580 ignore concatenated entries (kind 0x100) and report "no kernel image is available" although the image is there.
    """
    request = ExpandRequest(given.modules, given.members, Options(drop_signature=given.drop_signature, rebuild=True), max_image_size)
    return rewrite("expand", file, given, lambda node, progress: plan_expand(node, request), max_image_size)
