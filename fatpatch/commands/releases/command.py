"""``fatpatch releases``: which releases of a project run on a GPU."""

from __future__ import annotations

import json
import sys

import click

from fatpatch.commands._shared.fleet import fleet_option, gpus_of
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import naming_options
from fatpatch.commands._shared.options import GpuName, image_size_option, limits_from, shown_paths


@click.command("releases", cls=Grouped)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--gpu", "gpus", type=GpuName(), multiple=True, metavar="NAME", help="GPU to judge for, @FILE: a list. Repeatable.")
@fleet_option
@click.option("--driver", metavar="VERSION", help="Driver version, e.g. 535.154 (default: the best for each GPU).")
@click.option("--newest", is_flag=True, help="Stop at the first release that runs on every GPU.")
@click.option("--bisect", is_flag=True, help="Open only the releases between which an answer changes.")
@click.option("--last", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="Number of releases to consider.")
@click.option("--pre", "prereleases", is_flag=True, help="Include pre-releases.")
@click.option("--whole", is_flag=True, help="Read every library whole instead of samples of large ones.")
@click.option("--db", "database", metavar="INDEX", help="Index that keeps what was read (default: one in the user's cache).")
@click.option("--again", is_flag=True, help="Re-scan releases that the index has.")
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True, help="Output format.")
@naming_options
@image_size_option
def command(
    names: tuple[str, ...],
    gpus: tuple[str, ...],
    fleets: tuple[str, ...],
    driver: str | None,
    newest: bool,
    bisect: bool,
    last: int,
    prereleases: bool,
    whole: bool,
    database: str | None,
    again: bool,
    form: str,
    max_image_size: int,
) -> int:
    """Report which releases of a project run on a GPU.

    NAME is a project of pip's index (NAME or pypi:NAME), an npm package (npm:NAME), or a list of files and URLs that are releases. Of
    each release the headers of its images are read, by ranges; they are kept, so that the next question about it fetches nothing. The
    exit code is 0 when each GPU has a release that runs.
    """
    from fatpatch.api.releases import ReleaseSearch, ReleasesRequest
    from fatpatch.commands._shared.naming import choices
    from fatpatch.commands._shared.progress import watched
    from fatpatch.commands.releases import text
    from fatpatch.commands.releases.run import judged

    if newest and bisect:
        raise click.UsageError("--newest and --bisect exclude each other")
    gpus = gpus_of(gpus, fleets)
    if not gpus:
        raise click.UsageError("give --gpu or --fleet")
    search = "newest" if newest else "bisect" if bisect else "every"
    request = ReleasesRequest(search, last, prereleases, whole, again)
    where = ReleaseSearch(choices(), limits_from(max_image_size), watched, database)
    code, found = judged(names, shown_paths(names), gpus, driver, request, where)
    if form == "json":
        sys.stdout.write(json.dumps(text.document(found), indent=1) + "\n")
    else:
        lines = text.markdown(found) if form == "markdown" else text.text(found)
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return code
