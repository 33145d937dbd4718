"""The modules of a binary: its CUDA fatbins and AMD bundles, each with the kernels that its host code launches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.signature import ImageSignature, signature_of, without_hashes
from fatpatch.model.kinds import LAUNCHED, ImageKind, ModuleKind, Vendor
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import payloads_below

_KINDS = {
    Vendor.NVIDIA: (ModuleKind.FATBIN, ModuleKind.CUBIN, ModuleKind.PTX),
    Vendor.AMD: (ModuleKind.OFFLOAD_BUNDLE,),
    Vendor.INTEL: (),
}


class ModuleInHost(NamedTuple):
    """One fatbin or bundle and its holder. ``names`` is None when no image could be read; ``relocatable``: linked at load time.

    ``forms`` are the names without the ids that depend on the build folder.
    """

    node: Node
    payload: Payload
    names: frozenset[str] | None
    relocatable: bool
    forms: frozenset[str] = frozenset()
    problem: str = ""

    @property
    def vendor(self) -> str:
        return self.payload.vendor

    @property
    def locator(self) -> str:
        return self.payload.locator

    def has(self, target: str) -> bool:
        """Whether some image is for the target."""
        return any(image.target == target for image in self.payload.images)


def modules_of(node: Node, limit: int) -> list[ModuleInHost]:
    """Every module below ``node``, in document order; of each only the image that is fastest to read is read."""
    return [_module(holder, payload, limit) for holder, payload in payloads_below(node) if payload.kind in _KINDS[payload.vendor]]


def _module(holder: Node, payload: Payload, limit: int) -> ModuleInHost:
    problem = "no image whose kernels can be read"
    for image in sorted(_with_kernels(payload), key=lambda image: (image.kind not in (ImageKind.SASS, ImageKind.HSACO), image.size or 0)):
        try:
            signature = _signature(holder, image, limit, detail=False)
        except FatpatchError as error:
            problem = f"{image.target} cannot be read: {error.message}"
            continue
        names = frozenset(signature.kernels)
        return ModuleInHost(holder, payload, names, bool(signature.relocatable), frozenset(map(without_hashes, names)))
    relocatable = payload.section is not None and payload.section.startswith("__nv_rel")
    return ModuleInHost(holder, payload, None, relocatable, problem=problem)


def reference_of(
    module: ModuleInHost, target: str, limit: int, spared: ImageEntry | None = None
) -> tuple[ImageEntry, ImageSignature] | None:
    """The image of the module nearest to a target, machine code first, and what it promises; not the one to be replaced."""
    images = [image for image in _with_kernels(module.payload) if image is not spared]
    for image in sorted(images, key=lambda image: _distance(image, target)):
        try:
            return image, _signature(module.node, image, limit, detail=True)
        except FatpatchError:
            continue
    return None


def _distance(image: ImageEntry, target: str) -> tuple[bool, int]:
    """How far an image is from a target: in SM numbers; for AMD in the digits that the processors share."""
    if image.kind == ImageKind.HSACO:
        pairs = zip(Target(image.target).processor, Target(target).processor, strict=False)
        alike = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        return False, -alike
    try:
        return image.kind != ImageKind.SASS, abs(Target(image.target).level[0] - Target(target).level[0])
    except ValueError:
        return True, 1 << 30


def _with_kernels(payload: Payload) -> Iterator[ImageEntry]:
    return (image for image in payload.images if image.kind in LAUNCHED and image.readable)


def _signature(holder: Node, image: ImageEntry, limit: int, *, detail: bool) -> ImageSignature:
    return signature_of(image.kind, ImageReader(holder.content, limit).read(image), options=image.options, detail=detail)
