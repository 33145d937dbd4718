"""``fatpatch report``: one page to look at."""

from __future__ import annotations

import click

from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import named_units, naming_options
from fatpatch.commands._shared.options import image_size_option, jobs_option, limits_from
from fatpatch.commands._shared.standard_input import InputFile


@click.command("report", cls=Grouped)
@click.argument("files", type=InputFile(), nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", required=True, metavar="PAGE", help="Output file, such as report.html.")
@click.option("--overwrite", "force", is_flag=True, help="Overwrite an existing page.")
@click.option("--diff", "compare", is_flag=True, help="Compare two files or folders: OLD NEW.")
@click.option("--title", help="Page title (default: the file names).")
@click.option("--policy", metavar="FILE", help="Policy file to check against (default: as 'check' finds it).")
@jobs_option
@naming_options
@image_size_option
def command(
    files: tuple[str, ...],
    output: str,
    force: bool,
    compare: bool,
    title: str | None,
    policy: str | None,
    jobs: int | None,
    max_image_size: int,
) -> int:
    """Write an HTML report.

    The page is self-contained. It shows which GPUs run FILE and why, kernels by target, a map of the bytes, and policy findings. With
    --diff it compares two releases. FILE may also be a folder, an installed distribution (NAME), pypi:NAME, npm:NAME or pid:NUMBER.
    """
    from fatpatch.commands.report import run as reporting

    units = named_units(files)
    limits = limits_from(max_image_size)
    target = reporting.PageRequest(output, title, force).check()
    if compare:
        if len(units) != 2:
            raise click.UsageError("--diff takes two: OLD NEW")
        if policy is not None:
            raise click.UsageError("--policy is not for --diff")
        return reporting.compare_page(units[0], units[1], target, limits, jobs)
    return reporting.page(units, target, policy, limits, jobs)
