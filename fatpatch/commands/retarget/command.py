"""``fatpatch retarget``: code for a GPU that a file left out, made of its own PTX."""

from __future__ import annotations

import json
import os
import sys

import click

from fatpatch import __version__
from fatpatch.api.gpus import ptxas_target
from fatpatch.api.retarget import RetargetRequest, Wanted, retarget, write_images
from fatpatch.base.writing import write_file
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import TargetName, image_size_option, limits_from, shown_paths
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.standard_input import InputFile
from fatpatch.commands._shared.usage import usage_error
from fatpatch.commands.retarget.text import retarget_json, retarget_text
from fatpatch.model.kinds import ImageKind

INDEX = "index.json"
_NOTHING = 1


@click.command("retarget", cls=Grouped)
@click.argument("file", type=InputFile(), metavar="FILE")
@click.option("--to", "target", type=TargetName(), required=True, metavar="TARGET", help="Target to compile for: sm_61, or a GPU name.")
@click.option(
    "-o", "--output", "directory", metavar="DIR", help="Write the images and an index.json to this folder (default: report only)."
)
@click.option("--source", metavar="LEVEL", help="PTX to compile, e.g. compute_70 (default: the lowest not below the target).")
@click.option("--allow", type=click.Choice(["unverified"]), help="Include class 2 kernels; test the result before use.")
@click.option(
    "--kernel", "kernels", multiple=True, metavar="NAME", help="Include this kernel regardless of class (mangled name). Repeatable."
)
@click.option("--as", "form_of", type=click.Choice(["cubin", "ptx"]), default="cubin", show_default=True, help="Output kind.")
@click.option("--no-rewrite", is_flag=True, help="Do not rewrite instructions that ptxas rejects.")
@click.option(
    "--module", "modules", multiple=True, metavar="LOCATOR", help="Compile only this module: a locator or its end, * allowed. Repeatable."
)
@click.option("--member", "members", multiple=True, metavar="PATH", help="Compile only modules in this archive member. Repeatable.")
@click.option("--overwrite", "force", is_flag=True, help="Overwrite existing files.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
@click.option("-v", "--verbose", is_flag=True, help="List every kernel.")
@image_size_option
def command(
    file: str,
    target: str,
    directory: str | None,
    source: str | None,
    allow: str | None,
    kernels: tuple[str, ...],
    form_of: str,
    no_rewrite: bool,
    modules: tuple[str, ...],
    members: tuple[str, ...],
    force: bool,
    form: str,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Compile embedded PTX for a missing target.

    Uses NVIDIA's ptxas; no GPU is needed. Each kernel gets a class: 1 identical code in PTX for an architecture below and above the
    target; 2 compiles, launch shape unchanged; 3 launch shape differs or is unknown; 4 the source body is a stub; 5 rejected by ptxas.
    Class 1 kernels are included; the others become traps unless requested. Recompiling the source is the exact repair. The exit code
    is 1 when no code could be compiled.
    """
    with usage_error("--to"):
        target = ptxas_target(target)
    wanted = Wanted(unverified=allow is not None, kernels=frozenset(kernels))
    request = RetargetRequest(target, source, wanted, modules, members, form_of == ImageKind.PTX, not no_rewrite, max_image_size)
    shown = shown_paths([file])[0]
    with Progress(shown) as progress:
        found = retarget(file, shown, request, limits_from(max_image_size), progress.at)
    names = write_images(directory, found, request, replace=force) if directory is not None and found.made else {}
    document = retarget_json(found, names, request, __version__)
    if directory is not None and found.made:
        write_file(os.path.join(directory, INDEX), [json.dumps(document, indent=1).encode(), b"\n"], replace=force)
    if form == "json":
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        for line in retarget_text(found, request, shown, directory, len(names), verbose=verbose):
            sys.stdout.write(line + "\n")
    return 0 if found.made else _NOTHING
