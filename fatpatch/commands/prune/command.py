"""``fatpatch prune``: remove unneeded device code from a linked file."""

from __future__ import annotations

import click

from fatpatch.api.rewrites import pruning
from fatpatch.commands._shared.editing import EditRequest, edit_options, rewrite
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.named import devices_named, split_targets
from fatpatch.commands._shared.options import GpuName, TargetName, image_limit_option


@click.command("prune", cls=Grouped)
@click.argument("file")
@click.option(
    "--keep",
    type=TargetName(),
    metavar="TARGETS",
    multiple=True,
    help="Keep only these targets: sm_75,sm_86,compute_90 or 'gfx11*'. Repeatable.",
)
@click.option("--drop", type=TargetName(), metavar="TARGETS", multiple=True, help="Remove these targets: sm_50,sm_52. Repeatable.")
@click.option("--for", "gpus", type=GpuName(), metavar="GPU", multiple=True, help='Keep what these GPUs load: "RTX 3060". Repeatable.')
@click.option("--compact", is_flag=True, help="Shrink the file; otherwise removed bytes become zeros.")
@click.option("--force", is_flag=True, help="Prune even if a GPU loses code.")
@edit_options
@image_limit_option
def command(
    file: str,
    keep: tuple[str, ...],
    drop: tuple[str, ...],
    gpus: tuple[str, ...],
    compact: bool,
    force: bool,
    given: EditRequest,
    max_image_size: int,
) -> int:
    """Remove unneeded device code.

    FILE may be a .so, .dll, program, wheel, llamafile, fatbin or bundle. Which image a GPU loads is decided for each module, with
    binary-compatible SASS and PTX; a module is not pruned if a remaining GPU would lose its code. Kept images are unchanged.
    """
    if bool(keep) + bool(drop) + bool(gpus) != 1:
        raise click.UsageError("give one of --keep TARGETS, --drop TARGETS, --for GPU, and only one")
    kept, dropped, devices = split_targets(keep), split_targets(drop), [device for gpu in gpus for device in devices_named(gpu)]
    edit = given.choices(max_image_size)
    return rewrite("prune", file, given, edit, pruning(kept, dropped, devices, edit, compact=compact, force=force))
