"""``fatpatch recompress``: the images of a file compressed otherwise."""

from __future__ import annotations

import click

from fatpatch.api.rewrites import LEVELS, recompressing
from fatpatch.commands._shared.editing import EditRequest, edit_options, rewrite
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import image_limit_option


@click.command("recompress", cls=Grouped)
@click.argument("file")
@click.option(
    "--codec",
    type=click.Choice(sorted(map(str, LEVELS))),
    required=True,
    help="Codec: zstd is smallest, lz4 also works with older drivers.",
)
@click.option("--level", type=int, metavar="N", help="Compression level: zstd 1 to 22, lz4 1 to 12.")
@click.option("--compact", is_flag=True, help="Shrink the file; otherwise freed bytes become zeros.")
@click.option("--exact", is_flag=True, help="Compress every image, not a sample (with --dry-run).")
@edit_options
@image_limit_option
def command(file: str, codec: str, level: int | None, compact: bool, exact: bool, given: EditRequest, max_image_size: int) -> int:
    """Recompress device images.

    An image keeps its original form when recompression does not make it smaller, unless an older driver could not read it.
    With --dry-run the sizes of a large file are an estimate from a sample."""
    if level is not None and not 1 <= level <= LEVELS[codec]:
        expected = f"expected 1 to {LEVELS[codec]}" if LEVELS[codec] else "none has no levels"
        raise click.BadParameter(f"{level}: {expected}", param_hint="--level")
    if exact and not given.dry_run:
        raise click.UsageError("--exact goes with --dry-run; an edit always compresses every image")
    edit = given.choices(max_image_size)
    return rewrite("recompress", file, given, edit, recompressing(codec, level, edit, compact=compact, exact=exact or not given.dry_run))
