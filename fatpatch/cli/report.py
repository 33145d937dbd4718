"""``fatpatch report``: one page to look at."""

from __future__ import annotations

import click

from fatpatch.cli.options import image_size_option, limits_from, shown_paths


@click.command("report")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("-o", "--output", required=True, metavar="PAGE", help="The page to write, such as report.html.")
@click.option("--force", is_flag=True, help="Write over PAGE.")
@click.option("--diff", "compare", is_flag=True, help="Compare two files or folders: OLD NEW.")
@click.option("--title", help="The title (default: the names of the files).")
@click.option("--policy", metavar="FILE", help="What check holds the files against (default: as check finds it).")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), help="Processes for reading (default: all processors).")
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
    """Write one self-contained HTML page about FILE... (files, folders, wheels, llamafiles), or with --diff about two releases.

    It shows which GPUs run them and why, kernels by target, where the bytes are, and what check finds. Needs no network.
    """
    from fatpatch.cli import reporting

    pairs = list(zip(files, shown_paths(files), strict=True))
    limits = limits_from(max_image_size)
    target = reporting.Target(output, title, force).check()
    if compare:
        if len(pairs) != 2:
            raise click.UsageError("--diff takes two: OLD NEW")
        if policy is not None:
            raise click.UsageError("--policy is not for --diff")
        return reporting.compare_page(pairs[0], pairs[1], target, limits, jobs)
    return reporting.page(pairs, target, policy, limits, jobs)
