"""``fatpatch retarget``: code for a GPU that a file left out, made of its own PTX."""

from __future__ import annotations

import json
import os
import re
import sys

import click

from fatpatch import __version__
from fatpatch.base.locator import file_name, steps
from fatpatch.base.writing import write_file
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import TargetName, image_size_option, limits_from, make_folder, shown_paths
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.retarget_options import refuse_unknown, target_named
from fatpatch.commands._shared.standard_input import InputFile
from fatpatch.commands.retarget.text import retarget_json, retarget_text
from fatpatch.model.kinds import ImageKind
from fatpatch.retargeting.kernels import Wanted
from fatpatch.retargeting.ptxas import find_ptxas
from fatpatch.retargeting.run import Retargeted, RetargetRequest, retargeted
from fatpatch.scan.walk import inspected

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
    ptxas = find_ptxas()
    wanted = Wanted(unverified=allow is not None, kernels=frozenset(kernels))
    target = target_named(target, "--to")
    request = RetargetRequest(target, source, wanted, modules, members, form_of == ImageKind.PTX, not no_rewrite, max_image_size)
    shown = shown_paths([file])[0]
    limits = limits_from(max_image_size)
    found: list[Retargeted] = []
    with Progress(shown) as progress, inspected(file, name=file_name(shown), limits=limits, progress=progress.at) as node:
        for each in retargeted(node, request, ptxas):
            progress.at(f"{each.payload.locator}", len(found), 0)
            found.append(each)
    refuse_unknown(kernels, found)
    made = any(each.image is not None for each in found)
    names = _written(directory, found, request, replace=force) if directory is not None and made else {}
    document = retarget_json(found, names, request, ptxas.release, __version__)
    if directory is not None and made:
        write_file(os.path.join(directory, INDEX), [json.dumps(document, indent=1).encode(), b"\n"], replace=force)
    if form == "json":
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        for line in retarget_text(found, request, shown, directory, len(names), ptxas.release, verbose=verbose):
            sys.stdout.write(line + "\n")
    return 0 if any(each.image is not None for each in found) else _NOTHING


def _written(directory: str, found: list[Retargeted], request: RetargetRequest, *, replace: bool) -> dict[str, str]:
    """Write every image; module locator -> name of its file."""
    make_folder(directory)
    names = {}
    for number, each in enumerate(found):
        if each.image is None:
            continue
        last = re.sub(r"[^A-Za-z0-9._-]+", "-", steps(each.payload.locator)[-1])[:80].strip("-")
        name = f"{number:03}-{last}.{request.target}.{'ptx' if request.as_ptx else 'cubin'}"
        write_file(os.path.join(directory, name), [each.image], replace=replace)
        names[each.payload.locator] = name
    return names
