"""``fatpatch extract``: write images, payloads and members to a folder."""

from __future__ import annotations

import json
import os
import sys

import click

from fatpatch import __version__
from fatpatch.api.extract import INDEX, KINDS, ExtractRequest, extracted
from fatpatch.base.errors import EditError, FormatError
from fatpatch.base.words import plural, safe, size
from fatpatch.base.writing import write_file
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import image_size_option, limits_from, print_diagnostics, shown_paths, targets_option, worse
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.standard_input import InputFile

SCHEMA = "fatpatch.extract/1"


@click.command("extract", cls=Grouped, epilog="KIND is one of: " + ", ".join(KINDS) + ".")
@click.argument("file", type=InputFile(), metavar="FILE")
@click.option("-d", "--directory", required=True, metavar="DIR", help="Output folder; created if missing.")
@targets_option("Extract only this target, e.g. sm_61; * allowed. Repeatable.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    metavar="KIND",
    help="Extract only this kind; fatbin: whole fatbins and bundles; member: archive members. Repeatable.",
)
@click.option("--select", "selects", multiple=True, metavar="GLOB", help="Extract only this locator or its end; * allowed. Repeatable.")
@click.option("--overwrite", "force", is_flag=True, help="Overwrite existing files.")
@image_size_option
def command(
    file: str, directory: str, targets: tuple[str, ...], kinds: tuple[str, ...], selects: tuple[str, ...], force: bool, max_image_size: int
) -> int:
    """Extract images to a folder.

    Writes every image of FILE uncompressed, with an index.json that describes them. Nothing is written outside the folder.
    """
    shown = shown_paths([file])[0]
    index = os.path.join(directory, INDEX)
    if os.path.lexists(index) and not force:
        raise EditError("exists already", locator=index, hint="give another folder, or --overwrite")
    choice = ExtractRequest(kinds=kinds, targets=targets, selects=selects)
    with Progress(shown) as progress:
        limits = limits_from(max_image_size)
        written, complaints = extracted(file, shown, choice, directory, limits, replace=force, progress=progress.at)
    if not written:
        print_diagnostics(complaints)
        click.echo("fatpatch: nothing matched, nothing was written; 'fatpatch inspect -v FILE' lists what there is", err=True)
        return worse(1, FormatError.exit_code) if any(item.level == "error" for item in complaints) else 1
    document = {
        "schema": SCHEMA,
        "tool_version": __version__,
        "source": shown,
        "files": [item._asdict() for item in written],
        "diagnostics": [item._asdict() for item in complaints],
    }
    write_file(index, [json.dumps(document, indent=1).encode(), b"\n"], replace=force)
    for item in written:
        sys.stdout.write(f"{item.path}  {size(item.size)}  {safe(item.locator)}\n")
    print_diagnostics(complaints)
    sys.stdout.write(f"{plural(len(written), 'file')} written to {safe(directory)}, and {INDEX}\n")
    return worse(0, FormatError.exit_code) if any(item.level == "error" for item in complaints) else 0
