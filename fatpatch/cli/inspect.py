"""``fatpatch inspect``: what GPU code a file holds."""

from __future__ import annotations

import sys

import click

from fatpatch.cli.inspecting import Run, Wish
from fatpatch.cli.options import image_size_option, limits_from, shown_paths
from fatpatch.cli.pattern import Pattern
from fatpatch.walk import KINDS

_HELP_FORMAT = "How to print: text for people, one json document, ndjson with one line a file, csv with one line an image or kernel."


@click.command("inspect")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--kernels", is_flag=True, help="Read the images too: kernels, resources, producers.")
@click.option(
    "--kernel", "kernel_pattern", metavar="REGEX", help="Only kernels whose mangled or demangled name matches (implies --kernels)."
)
@click.option(
    "--target", "targets", multiple=True, metavar="TARGET", help="Only images for this target, e.g. sm_61; repeatable, * allowed."
)
@click.option("--missing", metavar="TARGET", help="Only kernels that lack this target (implies --kernels).")
@click.option(
    "--resources", is_flag=True, help="Text: a table of what each kernel takes: registers, spills, shared memory, ... (implies --kernels)."
)
@click.option("--mangled", is_flag=True, help="Show mangled names in text.")
@click.option("--sha256", "digest", is_flag=True, help="Compute the sha256 of every unpacked image (json, ndjson, csv).")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "ndjson", "csv"]), default="text", show_default=True, help=_HELP_FORMAT
)
@click.option("--as", "kind", type=click.Choice(KINDS), help="Read the file as this kind instead of probing.")
@click.option(
    "--what-if",
    "what_if",
    metavar="PLAN",
    help="Show instead what prune and recompress would save: 'drop=sm_50,sm_52;compress=zstd-19' (zstd, lz4, none).",
)
@click.option("--duplicates", is_flag=True, help="Say instead what is there more than once, images and kernels, and what that costs.")
@click.option("--all-kinds", is_flag=True, help="Count SPIR-V (Vulkan, OpenCL) and Metal code too: it has no targets.")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), help="Processes for --kernels (default: all processors).")
@click.option("-v", "--verbose", is_flag=True, help="Every payload and image: offset, evidence, options.")
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
    duplicates: bool,
    all_kinds: bool,
    jobs: int | None,
    verbose: bool,
    max_image_size: int,
) -> int:
    """Show the GPU code in FILE...: containers, targets, images, and with --kernels every kernel.

    Reads ELF, PE, APE (llamafile), zip and wheel, tar, ar, GGUF, bare fatbins, cubins, PTX, offload bundles, code objects
    and kernel packs; members are read
    inside their archives. Listing unpacks nothing.
    """
    pairs = list(zip(files, shown_paths(files), strict=True))
    if duplicates:
        from fatpatch.cli.duplicating import tell_duplicates

        if kernels or resources or digest or kernel_pattern or missing or targets or all_kinds or what_if or form not in ("text", "json"):
            raise click.UsageError("--duplicates goes with --as, --jobs, --verbose and --format text or json only")
        return tell_duplicates(pairs, kind, limits_from(max_image_size), jobs, form, sys.stdout.write, verbose=verbose)
    if what_if is not None:
        from fatpatch.cli.what_if import tell_savings

        if kernels or resources or digest or kernel_pattern or missing or targets or all_kinds or form not in ("text", "json"):
            raise click.UsageError("--what-if goes with --as and --format text or json only")
        return tell_savings(pairs, what_if, kind, limits_from(max_image_size), form, sys.stdout.write)
    pattern = Pattern(kernel_pattern, "--kernel") if kernel_pattern is not None else None
    wish = Wish(
        kernels=kernels or resources or pattern is not None or missing is not None,
        pattern=pattern,
        targets=targets,
        missing=missing,
        resources=resources,
        mangled=mangled,
        digest=digest,
        verbose=verbose,
        jobs=jobs,
        kind=kind,
        all_kinds=all_kinds,
        limits=limits_from(max_image_size),
    )
    return Run(wish, pairs).write(form, sys.stdout.write)
