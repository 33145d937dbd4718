"""``fatpatch diff``: what a release gained and lost."""

from __future__ import annotations

import json
import math
import sys

import click

from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import named_units, naming_options
from fatpatch.commands._shared.options import image_size_option, jobs_option, limits_from
from fatpatch.commands._shared.standard_input import InputFile


@click.command("diff", cls=Grouped)
@click.argument("old", type=InputFile(), metavar="OLD")
@click.argument("new", type=InputFile(), metavar="NEW")
@click.option("--kernels", is_flag=True, help="List every kernel.")
@click.option(
    "--threshold",
    type=click.FloatRange(0),
    default=0.0,
    metavar="PERCENT",
    help="Ignore size and resource changes up to this percentage.",
)
@click.option("--mangled", is_flag=True, help="Show mangled names in text and markdown.")
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True, help="Output format.")
@jobs_option
@click.option("-v", "--verbose", is_flag=True, help="Show each file in full, however many differ.")
@naming_options
@image_size_option
def command(
    old: str, new: str, kernels: bool, threshold: float, mangled: bool, form: str, jobs: int | None, verbose: bool, max_image_size: int
) -> int:
    """Compare the GPU code of two releases.

    OLD and NEW may be files, folders, wheels or llamafiles, installed distributions (NAME), pypi:NAME==VERSION or
    npm:NAME@VERSION. Reports GPUs that stop or start working, added and removed targets and
    kernels, stubs, PTX, toolkits, sizes and resources. Renamed members are matched. GPUs are judged with the newest driver that
    supports them. The exit code is 0 when the GPU code is the same and 1 when it differs.
    """
    from fatpatch.api.judging import compared
    from fatpatch.commands._shared.file_loop import FileLoop
    from fatpatch.commands._shared.progress import Progress

    if math.isnan(threshold):
        raise click.BadParameter("expected a percentage", param_hint="--threshold")
    first, second = named_units((old, new))
    limits = limits_from(max_image_size)
    with Progress(f"{first.shown}, {second.shown}") as progress:
        found = compared(first, second, limits, threshold=threshold / 100, jobs=jobs, on_read=progress.at)
    if form == "json":
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
    else:
        render = found.markdown if form == "markdown" else found.text
        sys.stdout.write(render(every=kernels, mangled=mangled, verbose=verbose) + "\n")
    loop = FileLoop()
    loop.found(1 if found else 0)
    loop.tell(found.facts.diagnostics)
    for error in found.facts.errors:
        loop.failed(error)
    return loop.code
