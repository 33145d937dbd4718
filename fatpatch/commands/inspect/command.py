"""``fatpatch inspect``: what GPU code a file holds."""

from __future__ import annotations

import sys

import click

from fatpatch.api.inspection import KINDS, InspectChoices, NamePattern, PatternError
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.naming import named_files, named_units, naming_options
from fatpatch.commands._shared.options import TargetName, image_size_option, jobs_option, limits_from, targets_option
from fatpatch.commands._shared.standard_input import InputFile
from fatpatch.commands._shared.usage import usage_error
from fatpatch.commands.inspect.run import InspectRequest, Run

_HELP_FORMAT = "Output format; ndjson: one line per file, csv: one line per image or kernel."


@click.command("inspect", cls=Grouped, epilog="KIND is one of: " + ", ".join(KINDS) + ".")
@click.argument("files", type=InputFile(), nargs=-1, required=True, metavar="FILE...")
@click.option("--kernels", is_flag=True, help="List kernels and their resources.")
@click.option("--kernel", "kernel_pattern", metavar="REGEX", help="Show only kernels whose name matches (implies --kernels).")
@targets_option("Show only this target, e.g. sm_61; * allowed. Repeatable.")
@click.option("--missing", type=TargetName(), metavar="TARGET", help="Show only kernels without this target (implies --kernels).")
@click.option("--resources", is_flag=True, help="Show registers, shared memory, ... of each kernel (implies --kernels).")
@click.option("--mangled", is_flag=True, help="Show mangled names in text.")
@click.option("--sha256", "digest", is_flag=True, help="Compute the SHA-256 of uncompressed images (json, ndjson, csv).")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "ndjson", "csv"]), default="text", show_default=True, help=_HELP_FORMAT
)
@click.option("--as", "kind", type=click.Choice(KINDS), metavar="KIND", help="Read FILE as this kind instead of detecting it.")
@click.option(
    "--what-if",
    "what_if",
    metavar="PLAN",
    help="Estimate savings: 'drop=sm_50,sm_52;compress=zstd-19' (zstd, lz4, none).",
)
@click.option("--exact", is_flag=True, help="Compress every image, not a sample (with --what-if).")
@click.option("--duplicates", is_flag=True, help="Report duplicate images and kernels.")
@click.option("--all-kinds", is_flag=True, help="Also count SPIR-V (Vulkan, OpenCL) and Metal code.")
@jobs_option
@click.option("-v", "--verbose", is_flag=True, help="Show every module and image: offset, evidence, options.")
@naming_options
@image_size_option
def command(
    files: tuple[str, ...],
    kernels: bool,
    kernel_pattern: str | None,
    targets: tuple[str, ...],
    missing: str | None,
    resources: bool,
    mangled: bool,
    digest: bool,
    form: str,
    kind: str | None,
    what_if: str | None,
    exact: bool,
    duplicates: bool,
    all_kinds: bool,
    jobs: int | None,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Show the GPU code in a file, a package or a process.

    Reads ELF, PE, APE (llamafile), zip, wheel, tar, ar and GGUF files, bare fatbins, cubins, PTX, offload bundles, code objects and
    kernel packs, also inside archives. Listing does not decompress images. FILE may also be a folder, an installed distribution
    (NAME, NAME==VERSION), pypi:NAME, npm:NAME or pid:NUMBER; of a folder each package with GPU code is shown.
    """
    if exact and what_if is None:
        raise click.UsageError("--exact goes with --what-if")
    if duplicates:
        from fatpatch.commands.inspect.duplicates import tell_duplicates

        if kernels or resources or digest or kernel_pattern or missing or targets or all_kinds or what_if or form not in ("text", "json"):
            raise click.UsageError("--duplicates goes with --as, --jobs, --verbose and --format text or json only")
        return tell_duplicates(named_files(files), kind, limits_from(max_image_size), jobs, form, sys.stdout.write, verbose=verbose)
    if what_if is not None:
        from fatpatch.commands.inspect.what_if import tell_savings

        if kernels or resources or digest or kernel_pattern or missing or targets or all_kinds or form not in ("text", "json"):
            raise click.UsageError("--what-if goes with --as and --format text or json only")
        return tell_savings(named_files(files), what_if, kind, limits_from(max_image_size), form, sys.stdout.write, exact=exact)
    with usage_error("--kernel", PatternError):
        pattern = None if kernel_pattern is None else NamePattern(kernel_pattern)
        choices = InspectChoices(
            kernels=kernels or resources or pattern is not None or missing is not None,
            pattern=pattern,
            targets=targets,
            missing=missing,
            digest=digest,
            detail=resources or form != "text",
            jobs=jobs,
            kind=kind,
            all_kinds=all_kinds,
        )
        request = InspectRequest(choices, mangled, verbose, limits_from(max_image_size))
        return Run(request, named_units(files)).write(form, sys.stdout.write)
