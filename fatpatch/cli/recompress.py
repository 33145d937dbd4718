"""``fatpatch recompress``: the images of a file compressed otherwise."""

from __future__ import annotations

import click

from fatpatch.cli.editing import Given, edit_options, renewed
from fatpatch.cli.options import image_limit_option
from fatpatch.edits.host import Options
from fatpatch.edits.recompress import LEVELS, Wishes, plan_recompress


@click.command("recompress")
@click.argument("file")
@click.option("--codec", type=click.Choice(sorted(LEVELS)), required=True, help="zstd is smallest; lz4 is read by older drivers too.")
@click.option("--level", type=int, metavar="N", help="How hard to try: zstd 1 to 22, lz4 1 to 12.")
@click.option("--compact", is_flag=True, help="Take the freed bytes out of the file; else they become zeros in their place.")
@edit_options
@image_limit_option
def command(file: str, codec: str, level: int | None, compact: bool, given: Given, max_image_size: int) -> int:
    """Compress the images in FILE otherwise, each only where that gains: to ship less, or so that an older driver reads them."""
    if level is not None and not 1 <= level <= LEVELS[codec]:
        expected = f"expected 1 to {LEVELS[codec]}" if LEVELS[codec] else "none has no levels"
        raise click.BadParameter(f"{level}: {expected}", param_hint="--level")
    wishes = Wishes(
        codec,
        level,
        given.modules,
        given.members,
        Options(drop_signature=given.drop_signature, compact=compact, rebuild=True),
        max_image_size,
    )
    return renewed("recompress", file, given, lambda node, progress: plan_recompress(node, wishes, progress), max_image_size)
