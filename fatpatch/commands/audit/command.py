"""``fatpatch audit``: many files, one index."""

from __future__ import annotations

import click

from fatpatch.commands._shared.fleet import fleet_option, gpus_of
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import environment_option, platform_options
from fatpatch.commands._shared.options import GpuName, image_size_option, jobs_option, limits_from


@click.command("audit", cls=Grouped)
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--db", "database", required=True, metavar="INDEX", help="Index file (SQLite); created if missing.")
@click.option("--files-from", metavar="LIST", help="Read paths or URLs from this file, one per line; - for standard input.")
@click.option("--shard", metavar="I/N", help="Read only the I-th of N parts; 'fatpatch db merge' combines them.")
@click.option("--dask", "cluster", metavar="ADDRESS", help="Run on a Dask cluster, such as tcp://scheduler:8786.")
@click.option("--index", metavar="URL|DIR", help="Read projects FILE[==VERSION] from this simple index.")
@click.option("--html", metavar="PAGE", help="Write an HTML report on the index when done.")
@click.option("--again", is_flag=True, help="Re-scan unchanged files.")
@click.option("--ndjson", is_flag=True, help="Print one line of JSON for each file.")
@click.option("--gpu", "gpus", type=GpuName(), multiple=True, metavar="NAME", help="Report how many libraries run on this GPU. Repeatable.")
@fleet_option
@environment_option
@platform_options
@jobs_option
@image_size_option
def command(
    files: tuple[str, ...],
    database: str,
    files_from: str | None,
    shard: str | None,
    cluster: str | None,
    index: str | None,
    html: str | None,
    again: bool,
    ndjson: bool,
    gpus: tuple[str, ...],
    fleets: tuple[str, ...],
    jobs: int | None,
    max_image_size: int,
) -> int:
    """Scan many files into an index.

    FILE may be a file, folder, pattern, URL, an installed distribution (NAME), pypi:NAME, npm:NAME or pid:NUMBER; 'fatpatch query'
    queries the index. Unchanged files (size and modification time, or ETag) are not scanned again. An interrupted run continues with the
    same command. Files that no longer exist stay in the index. The exit code is 3 when a file could not be read.
    """
    from fatpatch.commands.audit import run as auditing

    request = auditing.AuditRequest(files, files_from, shard, cluster, index, html, jobs, again, ndjson, gpus_of(gpus, fleets))
    return auditing.audit(request, database, limits_from(max_image_size))
