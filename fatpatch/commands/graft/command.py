"""``fatpatch graft``: put images into a binary that is linked already."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import click

from fatpatch import __version__
from fatpatch.api.edit_run import Own, grafted, images_given
from fatpatch.api.options import GraftChoices
from fatpatch.base.errors import EditError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import escape
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import plural
from fatpatch.commands._shared.editing import EditRequest, edit_options, file_to_edit, same_file
from fatpatch.commands._shared.grouped import Grouped
from fatpatch.commands._shared.options import TargetName, image_size_option, limits_from, shown_paths
from fatpatch.commands._shared.progress import Progress
from fatpatch.edit.graft.plan import GraftRequest
from fatpatch.edit.graft.retag import Retag
from fatpatch.edit.graft.text import graft_json, graft_text
from fatpatch.edit.host.host import Options
from fatpatch.gpus.drivers import ptx_of_driver
from fatpatch.hostcode.llamafile import is_llamafile, library_copies, renews_copies
from fatpatch.model.tree import Node
from fatpatch.remote.opening import refuse_address
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned
from fatpatch.scan.walk import inspected


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
@click.option(
    "--target",
    "targets",
    type=TargetName(),
    multiple=True,
    metavar="TARGET",
    help="Target to copy from the donor, e.g. sm_61 or gfx1030. Repeatable.",
)
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
    prepare = None if retarget is None else partial(_made, Retargeting(retarget, allow is not None, frozenset(kernels)), request)
    images = GraftChoices(cubins=cubins, ptx=texts, fatbins=fatbins, hsaco=objects, donor=donor, targets=targets)
    with images_given(images, limits.image, partial(_donor, limits), lambda path: shown_paths([path])[0]) as found:
        paths = _extracted(file, limits) if extracted else [file]
        for path in paths:
            with file_to_edit(path, given.destination(path), limits) as subject:
                result = grafted(subject, found, request, driver, prepare)
            if given.form == "json":
                sys.stdout.write(json.dumps(graft_json(*result, __version__), indent=1 if len(paths) == 1 else None) + "\n")
            else:
                sys.stdout.writelines(f"{line}\n" for line in graft_text(*result, verbose=given.verbose))
    return 0


@contextmanager
def _donor(limits: Limits, path: str) -> Iterator[Node]:
    with Progress(os.path.basename(path)) as progress, inspected(path, limits=limits, progress=progress.at) as node:
        yield node


def _retags(texts: tuple[str, ...]) -> tuple[Retag, ...]:
    """The pairs of --retag; a usage error for what is none."""
    try:
        return tuple(map(Retag.of, texts))
    except InputError as error:
        raise click.BadParameter(f"{error.message}\n  hint: {error.hint}", param_hint="--retag") from error


def _extracted(file: str, limits: Limits) -> list[str]:
    """The extracted copies of a llamafile's GPU libraries; EditError when there are none."""
    with inspected(file, limits=limits) as node:
        if not is_llamafile(node):
            hint = "give the llamafile, or graft into the file itself with --in-place"
            raise EditError("is not a llamafile with a GPU library inside", locator=file, hint=hint)
        if renews_copies(node):
            hint = "graft into the llamafile itself, with -o OUT"
            raise EditError("renews its extracted copy at every start, so a change there would not last", locator=file, hint=hint)
        copies = library_copies(node)
    found = [path for _, paths in copies for path in paths]
    if not found:
        raise EditError(
            "no extracted copy of its GPU library is on this machine", locator=file, hint="graft into the llamafile itself, with -o OUT"
        )
    return found


class Retargeting(NamedTuple):
    """What images are to be made of FILE's own PTX: for which target, of which kernels besides class 1."""

    target: str
    unverified: bool
    kernels: frozenset[str]


def _made(asked: Retargeting, request: GraftRequest, node: Node) -> tuple[Own, list[str]]:
    """The images that FILE's own PTX gives, each with its module, and what to warn of.

    EditError when there is none, or when kernels that the GPU runs today would be traps.
    """
    from fatpatch.commands._shared.retarget_options import refuse_unknown, target_named
    from fatpatch.commands.graft.retargeted import donation_of
    from fatpatch.retargeting.kernels import Wanted
    from fatpatch.retargeting.ptxas import find_ptxas
    from fatpatch.retargeting.run import RetargetRequest, retargeted

    target = target_named(asked.target, "--retarget")
    modules = pinned(list(payloads_below(node)), request.modules, request.members)
    there = sum(any(image.target == target for image in payload.images) for _, payload in modules)
    if there and not request.replace:
        message = f"has {target} code in {plural(there, 'module')} already"
        raise EditError(message, locator=node.locator, hint="--replace puts what is made in its place; --module names those that lack it")
    aim = RetargetRequest(target, None, Wanted(asked.unverified, asked.kernels), request.modules, request.members, limit=request.limit)
    found = list(retargeted(node, aim, find_ptxas()))
    refuse_unknown(asked.kernels, found)
    made = [each for each in found if each.image is not None]
    if not made:
        hint = f"'fatpatch retarget FILE --to {target}' says why for each kernel"
        raise EditError(f"no code for {target} can be made of its PTX that is proven to be right", locator=node.locator, hint=hint)
    lost = [kernel for each in made for kernel in each.lost]
    if lost and not request.force:
        message = f"{len(lost)} kernels that {target} runs today would be traps, such as {escape(lost[0])}"
        raise EditError(
            message, locator=node.locator, hint="--allow unverified or --kernel takes more of them; --force grafts all the same"
        )
    traps = sum(not verdict.taken for each in made for verdict in each.verdicts)
    unsure = sum(verdict.taken and verdict.number > 1 for each in made for verdict in each.verdicts)
    warnings = [f"{traps} kernels are traps in the new images: launching one is an error; 'fatpatch retarget' says why"] if traps else []
    if unsure:
        warnings.append(f"UNVERIFIED: {unsure} kernels may compute wrong numbers: they were written for another GPU")
    return tuple((each.payload.locator, donation_of(each, aim)) for each in made), warnings
