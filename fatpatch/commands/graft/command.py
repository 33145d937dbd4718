"""``fatpatch graft``: put images into a binary that is linked already."""

from __future__ import annotations

import os
from functools import partial

import click

from fatpatch.api.edit_run import GraftRequest, Options, Retag, extracted_copies, grafted, images_given
from fatpatch.api.gpus import ptx_of_driver, ptxas_target
from fatpatch.api.naming import refuse_address
from fatpatch.api.options import GraftChoices
from fatpatch.api.retarget import Wanted, own_images
from fatpatch.commands._shared.editing import EditRequest, edit_options, file_to_edit, same_file
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import TargetName, image_size_option, limits_from, shown_paths, targets_option
from fatpatch.commands._shared.progress import watched
from fatpatch.commands._shared.usage import usage_error


@click.command("graft", cls=Grouped)
@click.argument("file")
@click.option(
    "--cubin", "cubins", multiple=True, metavar="F", help="Cubin, or folder of cubins; the target is read from the file. Repeatable."
)
@click.option("--ptx", "texts", multiple=True, metavar="F", help="PTX file; the driver compiles it at load time. Repeatable.")
@click.option("--fatbin", "fatbins", multiple=True, metavar="F", help="Fatbin file; all of its images are added. Repeatable.")
@click.option("--hsaco", "objects", multiple=True, metavar="F", help="AMD code object; the target is read from the file. Repeatable.")
@click.option(
    "--retag",
    "retags",
    multiple=True,
    metavar="A:B",
    help="AMD: copy code objects for A as objects for B, e.g. gfx1030:gfx1031. Repeatable.",
)
@click.option(
    "--retarget", type=TargetName(), metavar="TARGET", help="Compile FILE's own PTX for this target, as 'fatpatch retarget' does."
)
@click.option("--allow", type=click.Choice(["unverified"]), help="Include class 2 kernels (with --retarget).")
@click.option(
    "--kernel", "kernels", multiple=True, metavar="NAME", help="Include this kernel regardless of class (with --retarget). Repeatable."
)
@click.option("--from", "donor", metavar="DONOR", help="Binary to copy images for --target from (DLL, .so, wheel, llamafile).")
@targets_option("Target to copy from the donor, e.g. sm_61 or gfx1030. Repeatable.")
@click.option("--extracted", is_flag=True, help="Edit the GPU library that the llamafile FILE extracted, not FILE.")
@click.option("--replace", is_flag=True, help="Replace an existing image for the same target.")
@click.option("--rename-hash", is_flag=True, help="Rewrite build-folder hashes in the donor's kernel names.")
@click.option("--force", is_flag=True, help="Ignore non-fatal errors (a missing kernel or variable).")
@click.option("--compress", type=click.Choice(["none", "lz4", "zstd"]), help="Codec for new images (default: that of the module).")
@click.option("--cuobjdump", is_flag=True, help="ELF: move all fatbins of the section so that cuobjdump lists them.")
@click.option("--driver", metavar="VERSION", help="Show the result for this driver, e.g. 535.154.")
@edit_options
@image_size_option
def command(
    file: str,
    cubins: tuple[str, ...],
    texts: tuple[str, ...],
    fatbins: tuple[str, ...],
    objects: tuple[str, ...],
    retags: tuple[str, ...],
    retarget: str | None,
    allow: str | None,
    kernels: tuple[str, ...],
    donor: str | None,
    targets: tuple[str, ...],
    extracted: bool,
    replace: bool,
    rename_hash: bool,
    force: bool,
    compress: str | None,
    cuobjdump: bool,
    driver: str | None,
    given: EditRequest,
    max_image_size: int,
) -> int:
    """Add GPU code to a linked binary.

    FILE may be an ELF or PE file, wheel, zip, llamafile, fatbin or bundle. Images are matched to modules by their kernels. An edit that
    would crash the program or produce wrong results is refused before anything is written, and the result is verified before it
    replaces a file. AMD support is experimental: no AMD GPU has run a result.
    """
    if not (cubins or texts or fatbins or objects or retags or donor or retarget):
        options = "--cubin F, --ptx F, --fatbin F, --hsaco F, --retag A:B, --retarget T, or --from DONOR --target T"
        raise click.UsageError(f"give an image: {options}")
    if (allow is not None or kernels) and retarget is None:
        raise click.UsageError("--allow and --kernel go with --retarget")
    if (donor is None) != (not targets):
        raise click.UsageError("--from and --target go together: --from DONOR --target sm_61")
    if extracted and (given.output or given.in_place):
        raise click.UsageError("-o, --in-place and --extracted exclude each other")
    given = given._replace(in_place=given.in_place or extracted)
    given.destination(file)
    sources = (*cubins, *texts, *fatbins, *objects, *([donor] if donor else []))
    if given.output is not None and any(same_file(given.output, source) for source in sources):
        raise click.UsageError("-o names one of the images' files: give a new name")
    if driver is not None and (len(driver) > 40 or ptx_of_driver(driver) is None):
        raise click.BadParameter(f"{driver!r} is not a known driver version; write for example 535.154", param_hint="--driver")
    limits = limits_from(max_image_size)
    request = GraftRequest(
        modules=given.modules,
        members=given.members,
        replace=replace,
        rename_hash=rename_hash,
        force=force,
        codec=compress,
        limit=max_image_size,
        host=Options(cuobjdump=cuobjdump, drop_signature=given.drop_signature),
        retags=_retags(retags),
    )
    refuse_address(file)
    prepare = None if retarget is None else partial(own_images, _target(retarget), Wanted(allow is not None, frozenset(kernels)), request)
    images = GraftChoices(cubins=cubins, ptx=texts, fatbins=fatbins, hsaco=objects, donor=donor, targets=targets)
    with images_given(images, limits, lambda path: watched(os.path.basename(path)), lambda path: shown_paths([path])[0]) as found:
        paths = extracted_copies(file, limits) if extracted else [file]
        for path in paths:
            with file_to_edit(path, given.destination(path), limits) as subject:
                given.show(grafted(subject, found, request, driver, prepare), indent=1 if len(paths) == 1 else None)
    return 0


def _target(text: str) -> str:
    with usage_error("--retarget"):
        return ptxas_target(text)


def _retags(texts: tuple[str, ...]) -> tuple[Retag, ...]:
    """The pairs of --retag; a usage error for what is none."""
    with usage_error("--retag"):
        return tuple(map(Retag.of, texts))
