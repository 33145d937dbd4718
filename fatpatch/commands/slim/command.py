"""``fatpatch slim``: an environment, a wheel or a library for the GPUs that it will meet."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from fatpatch import __version__
from fatpatch.base.errors import VerifyError
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import GpuName, TargetName, image_limit_option, shown_paths
from fatpatch.commands._shared.usage import usage_error
from fatpatch.model.kinds import Codec

if TYPE_CHECKING:
    from fatpatch.api.gpus import Device, Driver
    from fatpatch.api.slim import LibraryResult, SlimRequest


@click.command("slim", cls=Grouped)
@click.argument("what", metavar="WHAT")
@click.option(
    "--for", "gpus", type=GpuName(), metavar="GPU", multiple=True, help='Keep what these GPUs load: "RTX 3060"; auto. Repeatable.'
)
@click.option("--drop", type=TargetName(), metavar="TARGETS", multiple=True, help="Remove these targets: sm_50,sm_52. Repeatable.")
@click.option("--keep-ptx", is_flag=True, help="Also keep PTX, which newer GPUs can compile.")
@click.option("--strip-lto", is_flag=True, help="Remove code for link-time optimization.")
@click.option(
    "--recompress", "codec", type=click.Choice(["zstd", "lz4"]), help="Recompress what stays; keep the original when not smaller."
)
@click.option("--driver", metavar="VERSION", help="Driver that must read the result: 580.65.06, or the CUDA version 13.0.")
@click.option(
    "--check", "trace", metavar="TRACE", help="Warn about kernels of a run that only removed code holds: a file with one name a line."
)
@click.option("-o", "--output", metavar="OUT", help="Write to a new file or folder; for wheels, the folder of the new wheels.")
@click.option("--in-place", is_flag=True, help="Edit WHAT itself; 'fatpatch undo WHAT' reverts it.")
@click.option("--dry-run", is_flag=True, help="Show the plan without writing.")
@click.option("--no-undo", is_flag=True, help="Do not write undo records, which are as large as what was removed.")
@click.option(
    "-j", "--jobs", type=click.IntRange(1, 64), metavar="N", help="Number of parallel processes (default: one per processor, at most 8)."
)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Output format.")
@click.option("-v", "--verbose", is_flag=True, help="List every library.")
@image_limit_option
def command(
    what: str,
    gpus: tuple[str, ...],
    drop: tuple[str, ...],
    keep_ptx: bool,
    strip_lto: bool,
    codec: str | None,
    driver: str | None,
    max_image_size: int,
    **options: object,
) -> int:
    """Remove device code that your GPUs do not load.

    WHAT is a virtual or conda environment, a site-packages folder, a wheel, a folder of wheels, a container image (docker-archive or OCI
    layout), a llamafile or a library. Each library is edited and verified as by 'fatpatch prune': every kept GPU must load the same code as
    before. RECORD and conda-meta get the new hashes, an image gets new digests.
    """
    from fatpatch.api.slim import FAILED, OutputError, SlimRequest, SlimRun, read_trace, slim
    from fatpatch.commands._shared.named import split_targets
    from fatpatch.commands.slim.text import slim_json, slim_text

    if not (gpus or drop or strip_lto or codec):
        raise click.UsageError('name what to keep or remove: --for "RTX 3060", --drop TARGETS, --strip-lto or --recompress zstd')
    if gpus and drop:
        raise click.UsageError("--for and --drop exclude each other")
    if keep_ptx and not gpus:
        raise click.UsageError("--keep-ptx goes with --for")
    output, in_place, dry = options["output"], bool(options["in_place"]), bool(options["dry_run"])
    if bool(output) + in_place + dry == 0:
        raise click.UsageError("name the output: -o OUT, --in-place, or --dry-run to write nothing")
    if output and in_place:
        raise click.UsageError("-o and --in-place exclude each other")
    trace = options["trace"]
    request = SlimRequest(
        trace=frozenset() if trace is None else read_trace(str(trace)),
        devices=_devices(gpus),
        drop=split_targets(drop),
        driver=_driver(driver),
        keep_ptx=keep_ptx,
        strip_lto=strip_lto,
        codec=codec,
        record=in_place and not options["no_undo"],
        limit=max_image_size,
    )
    _refuse_unreadable(request)
    jobs = int(str(options["jobs"])) if options["jobs"] else min(os.cpu_count() or 1, 8)
    run = SlimRun(str(output) if output else None, dry, jobs, _progress)
    with usage_error(kind=OutputError):
        report = slim(what, shown_paths([what])[0], request, run)
    if options["form"] == "json":
        sys.stdout.write(json.dumps(slim_json(report, __version__), indent=1) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in slim_text(report, verbose=bool(options["verbose"]))))
    return VerifyError.exit_code if any(each.status == FAILED for each in report.libraries) else 0


def _progress(result: LibraryResult) -> None:
    """Tells a terminal which library is done."""
    if sys.stderr.isatty():
        click.echo(f"{result.status}: {result.shown}", err=True)


def _devices(gpus: tuple[str, ...]) -> tuple[Device, ...]:
    from fatpatch.commands._shared.named import devices_named

    return tuple(dict.fromkeys(device for gpu in gpus for device in devices_named(gpu)))


def _driver(version: str | None) -> Driver | None:
    """The driver of a version; a usage error for none that is known."""
    from fatpatch.api.gpus import driver_of

    with usage_error("--driver"):
        return None if version is None else driver_of(version)


def _refuse_unreadable(request: SlimRequest) -> None:
    """A usage error for a codec that the driver does not read."""
    if request.codec == Codec.ZSTD and (request.driver is None or request.driver.zstd is not True):
        from fatpatch.api.gpus import first_zstd_driver

        if request.driver is None:
            raise click.UsageError(f"--recompress zstd needs --driver: drivers from {first_zstd_driver()[0]} on read zstd")
        raise click.UsageError(f"driver {request.driver.version} does not read zstd; {first_zstd_driver()[0]} and newer do")
