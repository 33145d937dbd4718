"""``fatpatch expand``: concatenated entries written as plain ones."""

from __future__ import annotations

import click

from fatpatch.cli.editing import Place, Telling, destination_options, renewed
from fatpatch.cli.options import image_size_option
from fatpatch.edits.expand import Wishes, plan_expand
from fatpatch.edits.host import Options


@click.command("expand")
@click.argument("file")
@destination_options
@image_size_option
def command(
    file: str,
    output: str | None,
    in_place: bool,
    dry_run: bool,
    overwrite: bool,
    no_undo: bool,
    modules: tuple[str, ...],
    members: tuple[str, ...],
    drop_signature: bool,
    form: str,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Write the concatenated entries (kind 0x100) in FILE as plain ones: drivers up to 580 ignore the former.

    It is the repair for a library that is too new for its user's driver: "no kernel image is available" though the image is there.
    """
    wishes = Wishes(modules, members, Options(drop_signature=drop_signature), max_image_size)
    place = Place(output, in_place, dry_run, overwrite, not no_undo)
    return renewed(file, place, lambda node: plan_expand(node, wishes), Telling("expand", form, verbose), max_image_size)
