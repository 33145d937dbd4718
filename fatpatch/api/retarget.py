"""Code for a GPU that a file left out, compiled from the file's own PTX: to look at, to write to a folder, or to graft."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from fatpatch.api.edit_run import Own
from fatpatch.base.errors import EditError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import escape, file_name, steps
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import plural
from fatpatch.base.writing import make_folder, write_file
from fatpatch.edit.graft.plan import GraftRequest
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.gpucode.signature import signature_of
from fatpatch.gpus.marks import MARK
from fatpatch.model.kinds import ImageKind
from fatpatch.model.tree import Node
from fatpatch.retargeting.kernels import IDENTICAL, UNCHANGED, WORDS, RetargetVerdict, Wanted
from fatpatch.retargeting.ptxas import find_ptxas
from fatpatch.retargeting.run import Retargeted, RetargetRequest, retargeted
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned
from fatpatch.scan.walk import Progress, inspected

__all__ = [
    "IDENTICAL",
    "UNCHANGED",
    "WORDS",
    "RetargetRequest",
    "RetargetVerdict",
    "Retargeted",
    "RetargetedFile",
    "Wanted",
    "own_images",
    "retarget",
    "write_images",
]


class RetargetedFile(NamedTuple):
    """What was compiled of each module, and by which release of ptxas."""

    modules: tuple[Retargeted, ...]
    release: str

    @property
    def made(self) -> tuple[Retargeted, ...]:
        """The modules for which there is an image."""
        return tuple(each for each in self.modules if each.image is not None)


def retarget(path: str, shown: str, request: RetargetRequest, limits: Limits, progress: Progress | None = None) -> RetargetedFile:
    """Compile the PTX of a file. ToolError without ptxas; EditError for a kernel that is named and not there."""
    ptxas = find_ptxas()
    found: list[Retargeted] = []
    with inspected(path, name=file_name(shown), limits=limits, progress=progress) as node:
        for each in retargeted(node, request, ptxas):
            if progress is not None:
                progress(each.payload.locator, len(found), 0)
            found.append(each)
    _refuse_unknown(request.wanted.kernels, found)
    return RetargetedFile(tuple(found), ptxas.release)


def write_images(directory: str, found: RetargetedFile, request: RetargetRequest, *, replace: bool) -> dict[str, str]:
    """Write every image to a folder; module locator -> name of its file."""
    make_folder(directory)
    names = {}
    for number, each in enumerate(found.modules):
        if each.image is None:
            continue
        last = re.sub(r"[^A-Za-z0-9._-]+", "-", steps(each.payload.locator)[-1])[:80].strip("-")
        name = f"{number:03}-{last}.{request.target}.{'ptx' if request.as_ptx else 'cubin'}"
        write_file(os.path.join(directory, name), [each.image], replace=replace)
        names[each.payload.locator] = name
    return names


def own_images(target: str, wanted: Wanted, graft: GraftRequest, node: Node) -> tuple[Own, list[str]]:
    """The images that a file's own PTX gives, each with its module, and what to warn of.

    EditError when there is none, or when kernels that the GPU runs today would be traps.
    """
    modules = pinned(list(payloads_below(node)), graft.modules, graft.members)
    there = sum(any(image.target == target for image in payload.images) for _, payload in modules)
    if there and not graft.replace:
        message = f"has {target} code in {plural(there, 'module')} already"
        raise EditError(message, locator=node.locator, hint="--replace puts what is made in its place; --module names those that lack it")
    request = RetargetRequest(target, None, wanted, graft.modules, graft.members, limit=graft.limit)
    found = list(retargeted(node, request, find_ptxas()))
    _refuse_unknown(wanted.kernels, found)
    made = [each for each in found if each.image is not None]
    if not made:
        hint = f"'fatpatch retarget FILE --to {target}' says why for each kernel"
        raise EditError(f"no code for {target} can be made of its PTX that is proven to be right", locator=node.locator, hint=hint)
    lost = [kernel for each in made for kernel in each.lost]
    if lost and not graft.force:
        message = f"{len(lost)} kernels that {target} runs today would be traps, such as {escape(lost[0])}"
        hint = "--allow unverified or --kernel takes more of them; --force grafts all the same"
        raise EditError(message, locator=node.locator, hint=hint)
    return tuple((each.payload.locator, _image_to_add(each, request)) for each in made), _warnings(made)


def _warnings(made: Sequence[Retargeted]) -> list[str]:
    traps = sum(not verdict.taken for each in made for verdict in each.verdicts)
    unsure = sum(verdict.taken and verdict.number > 1 for each in made for verdict in each.verdicts)
    warnings = [f"{traps} kernels are traps in the new images: launching one is an error; 'fatpatch retarget' says why"] if traps else []
    if unsure:
        warnings.append(f"UNVERIFIED: {unsure} kernels may compute wrong numbers: they were written for another GPU")
    return warnings


def _image_to_add(found: Retargeted, request: RetargetRequest) -> ImageToAdd:
    assert found.image is not None
    data = found.image
    origin = f"{found.payload.locator} ({found.source} for {request.target})"
    unsure = sum(verdict.taken and verdict.number != IDENTICAL for verdict in found.verdicts)
    mark = f"{MARK} {found.source}" + (f", {unsure} kernels unverified" if unsure else "")
    signature = signature_of(ImageKind.SASS, data, options=found.options)
    return ImageToAdd(origin, ImageKind.SASS, request.target, lambda: data, signature, options=found.options, identifier=mark)


def _refuse_unknown(kernels: Iterable[str], found: Sequence[Retargeted]) -> None:
    """EditError for a kernel that no module has."""
    there = {verdict.kernel for each in found for verdict in each.verdicts}
    for name in kernels:
        if name not in there:
            raise EditError(f"no kernel is called {name!r}", hint="'fatpatch retarget -v' lists them by their mangled names")
