"""What a graft changes for a GPU: the image that its driver loads, before and after."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.edit.graft.plan import Graft, GraftPlan
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.edit.transaction.comparison import TreeComparison
from fatpatch.gpus.amd import choose_object, first_processor, offered
from fatpatch.gpus.drivers import cuda_of_ptx, first_driver_for_cuda, ptx_of_driver
from fatpatch.gpus.selection import DEVICES, NO_IMAGE, LoadChoice, choose
from fatpatch.model.kinds import ImageKind, Vendor
from fatpatch.model.tree import ImageEntry, Payload


class Effect(NamedTuple):
    """For the GPU that a graft is meant for (``device``: "6.1" or gfx1031): the choice before, the choice after, what to warn of.

    ``locator`` is that of the module as it is now.
    """

    graft: Graft
    locator: str
    device: str
    before: LoadChoice
    after: LoadChoice
    warnings: tuple[str, ...]


def effects_of(plan: GraftPlan, both: TreeComparison, driver: str | None) -> list[Effect]:
    """The effect of every graft, by the driver's rules (reference: load rules, section 0)."""
    effects = []
    for graft in plan.grafts:
        found = both.pairs[graft.module.node.locator].counterpart(graft.module.payload)
        assert found is not None
        if graft.module.vendor == Vendor.AMD:
            effects.append(_effect_amd(graft, found))
            continue
        device = _device_for(graft.new_image, found.images)
        before, after = choose(graft.module.payload.images, device), choose(found.images, device)
        warnings = (*_warnings(graft, device, after, driver), *_newer_ptx(graft.new_image, device, found.images, driver))
        effects.append(Effect(graft, found.locator, f"{device // 10}.{device % 10}", before, after, warnings))
    return effects


def _effect_amd(graft: Graft, found: Payload) -> Effect:
    """By the sources of AMD's runtime: the processor that the object is for, or one of those that a generic object is for."""
    target = graft.new_image.target
    device = first_processor(target)
    before, after = (_choice_amd(images, device) for images in (graft.module.payload.images, found.images))
    warnings = []
    if after.image is None or after.image.target != target:
        loads = "loads nothing" if after.image is None else f"loads {after.image.target}, not this object"
        warnings.append(f"a GPU of {device} {loads}: {after.reason}")
    return Effect(graft, found.locator, device, before, after, tuple(warnings))


def _choice_amd(images: Sequence[ImageEntry], device: str) -> LoadChoice:
    found = choose_object(offered(images), device)
    return LoadChoice(found.image, None if found.image is not None else NO_IMAGE, found.reason, measured=False)


def _device_for(new_image: ImageToAdd, images: Sequence[ImageEntry]) -> int:
    """The GPU that a graft is meant for: that of a cubin; for PTX the lowest that now compiles it, or that of its target."""
    if new_image.kind == ImageKind.PTX:
        for device in DEVICES:
            chosen = choose(images, device).image if device >= new_image.arch else None
            if chosen is not None and (chosen.kind, chosen.target) == (new_image.kind, new_image.target):
                return device
    return new_image.arch


def _warnings(graft: Graft, device: int, after: LoadChoice, driver: str | None) -> list[str]:
    """What keeps the driver from loading the new image."""
    new_image, chosen = graft.new_image, after.image
    warnings = []
    if chosen is None:
        warnings.append(f"a GPU of {_name(device)} still loads nothing: {after.reason}")
    elif (chosen.target, chosen.kind) != (new_image.target, new_image.kind):
        warnings.append(f"a GPU of {_name(device)} loads {chosen.target}, not this image: {after.reason}")
    if new_image.kind == ImageKind.PTX and new_image.signature.version is not None:
        isa = "{}.{}".format(*new_image.signature.version)
        limit = None if driver is None else ptx_of_driver(driver)
        if limit is not None and _number(isa) > _number(limit):
            warnings.append(f"driver {driver} compiles PTX up to {limit}, this is {isa}: error 222 on every GPU that needs it")
        elif driver is None:
            warnings.append(_needs(isa))
    return warnings


def _needs(isa: str) -> str:
    """Which driver compiles a PTX version."""
    cuda = cuda_of_ptx(isa)
    needed = None if cuda is None else first_driver_for_cuda(cuda)
    if needed is None:
        return f"PTX {isa} is newer than any driver known here: error 222 on those that are"
    return f"PTX {isa} needs a driver that knows it: CUDA {cuda}, {needed[0]} on Linux or {needed[1]} on Windows, or newer"


def _newer_ptx(new_image: ImageToAdd, device: int, images: Sequence[ImageEntry], driver: str | None) -> list[str]:
    """Other PTX that the driver would choose although it cannot compile it, and entries that it does not read."""
    warnings = []
    limit = None if driver is None else ptx_of_driver(driver)
    for each in dict.fromkeys((device, new_image.arch)):
        chosen = choose(images, each).image
        if (
            chosen is None
            or chosen.kind != ImageKind.PTX
            or chosen.target == new_image.target
            or chosen.code_version is None
            or limit is None
        ):
            continue
        if _number(chosen.code_version) > _number(limit):
            taken = f"on {_name(each)} the driver takes {chosen.target} of PTX {chosen.code_version}"
            warnings.append(f"{taken}, and {driver} knows {limit}: error 222, no fallback")
    if any(image.within is not None for image in images):
        warnings.append("the fatbin has concatenated entries, which drivers up to 580 ignore")
    return warnings


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _name(arch: int) -> str:
    return f"compute capability {arch // 10}.{arch % 10}"
