"""``fatpatch audit``: many files, one index."""

from __future__ import annotations

import click

from fatpatch.cli.options import image_size_option, limits_from


@click.command("audit")
@click.argument("files", nargs=-1, metavar="FILE...")
@click.option("--db", "database", required=True, metavar="INDEX", help="The index (SQLite); made where there is none.")
@click.option("--files-from", metavar="LIST", help="A file with one path or address a line; - for standard input.")
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts, for several machines; 'fatpatch db merge' puts them together.")
@click.option(
    "--dask", "cluster", metavar="ADDRESS", help="Work on a Dask cluster, such as tcp://scheduler:8786, which sees the same files."
)
@click.option(
    "--index", metavar="URL|DIR", help="FILE... are names of projects, with ==VERSION or without: their wheels in this simple index."
)
@click.option("--html", metavar="PAGE", help="At the end write a page about the whole index.")
@click.option("--again", is_flag=True, help="Read what is unchanged, too.")
@click.option("--ndjson", is_flag=True, help="One line of JSON on standard output for each file that was read.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), help="Files at a time (default: all processors).")
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
    jobs: int | None,
    max_image_size: int,
) -> int:
    """Read FILE... (files, folders, patterns, addresses) into an index, which 'fatpatch query' asks.

    A file that is in the index is read again only when its size or time of modification changed, on a server its ETag, or with another
    version of fatpatch; one that could not be read is tried again. A run can be ended at any moment and taken up by the same command.
    Files that are gone stay in the index. Exit code 3 when something could not be read.
    """
    from fatpatch.cli import auditing

    wish = auditing.Wish(files, files_from, shard, cluster, index, html, jobs, again, ndjson)
    return auditing.audit(wish, database, limits_from(max_image_size))
