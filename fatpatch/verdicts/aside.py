"""Modules of a library that say nothing about a device: empty ones, input for a linker, and code for other generations.

A verdict below "will run" needs evidence that the device is meant to run what is missing. A program that picks modules by GPU, as
NVIDIA's own libraries do, never loads those here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from fatpatch.gpus.drivers import on_jetson_linux
from fatpatch.model.kinds import BARE_MODULES, ImageKind, Vendor
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.verdicts.facts import arch_of
from fatpatch.verdicts.linking import is_linked, is_relocatable
from fatpatch.verdicts.load_result import INVALID_IMAGE, NO_IMAGE, NOT_FOUND, UNSUPPORTED_PTX
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, JIT, NATIVE, STUB
from fatpatch.verdicts.names import family, generations_named
from fatpatch.verdicts.results import GOOD, Judged

_NATIVE: Final = frozenset({"sass", "ptx"})
_FOR_LINKERS: Final = frozenset({"lto", "tileir", "index", "bitcode"})
_FEW: Final = 50
_MANY_MAJORS: Final = 3
"""Major versions from which on a module's targets are a list for a build, rather than the generation that it is made for."""
_NOTHING_THERE: Final = frozenset({NO_IMAGE, NOT_FOUND})


class CodeReader(Protocol):
    """What of a library's code is read where its targets alone do not tell."""

    def names(self, node: Node, payload: Payload) -> frozenset[str]:
        """The kernels of a module, whatever it loads."""

    def is_hollow(self, node: Node, image: ImageEntry) -> bool:
        """Whether most kernels of an image do nothing."""


def for_linkers(modules: Sequence[Judged], *, links: Callable[[], bool]) -> Iterator[Judged]:
    """Modules that a linker takes, and those in which there is no kernel at all.

    For a linker is code for link-time optimization alone, and relocatable code beside such where the library calls nvJitLink (``links``).
    """
    lto = any(image.kind == ImageKind.LTO for module in modules for image in module.payload.images)
    for module in modules:
        images = module.payload.images
        if not images or module.verdict.verdict in GOOD or module.payload.vendor != Vendor.NVIDIA:
            continue
        error, own = module.verdict.cuda_error, any(image.kind == ImageKind.LTO for image in images)
        linked = (lto and error in (INVALID_IMAGE, NOT_FOUND)) or (own and error == NO_IMAGE)
        if all(image.kind in _FOR_LINKERS for image in images) or (linked and links()):
            yield module


def elsewhere(modules: Sequence[Judged], arch: int, code: CodeReader, *, picks: bool = False) -> Iterator[Judged]:
    """Modules for other generations, among others of the same library that load with kernels.

    Their code does not straddle the device: all of it is for GPUs above it, or all below. A module that was forgotten in a build lacks one
    generation and has code on both sides; not so in libraries that pick modules by GPU (``picks``): one may be for 7.5 and 10.0 alone.
    Where next to nothing loads, nothing shows that the library is meant for the device: relocatable code that is linked into it, such
    as a copy of NCCL, says nothing of the rest. Code for Tegra alone is not for other GPUs, though they load it.
    """
    if not any(map(_loads, modules)):
        return
    for relocatable in (False, True):
        own = [module for module in modules if (is_relocatable(module.payload) or is_linked(module.payload)) is relocatable]
        loading = sum(map(_loads, own))
        natively = any(map(_loads_natively, own))
        lacking = [module for module in own if module.payload.vendor == Vendor.NVIDIA and lacks(module) and not is_emptied(module.payload)]
        few, away = is_next_to_nothing(loading, len(lacking)), frozenset(map(id, lacking))
        lists = {_targets(module) for module in own if _loads(module)}
        variants = frozenset(map(id, _variants(own, arch, code))) if picks else frozenset()
        for module in own:
            if is_emptied(module.payload):
                apart = natively
            elif is_bare(module):
                apart = module.verdict.verdict not in GOOD or _other_system(module, arch)
            elif _other_system(module, arch):
                apart = any(_loads(each) and not _other_system(each, arch) for each in own)
            elif id(module) in away:
                apart = not few and (picks or not (_straddles(module, arch, code) or _forgotten(module, lists)))
            else:
                apart = id(module) in variants
            if apart:
                yield module


def is_next_to_nothing(loading: int, lacking: int) -> bool:
    """Whether so few modules load, of those that should, that they are what a compiler's default target left."""
    return loading * _FEW < lacking


def is_emptied(payload: Payload) -> bool:
    """Whether every image was removed from a fatbin in place: what is left are fillers."""
    return bool(payload.fillers) and not payload.images


def _targets(module: Judged) -> frozenset[str]:
    return frozenset(image.target for image in module.payload.images if image.kind in _NATIVE)


def _forgotten(module: Judged, lists: set[frozenset[str]]) -> bool:
    """Whether a module was built for many generations, by another list than any module that loads.

    A library's own kernels without the device, beside static libraries that have it: open3d 0.18 on a GTX 980. A shorter list of the same
    build is what a project chooses for kernels that need a newer GPU.
    """
    own = _targets(module)
    majors = {arch_of(image) // 10 for image in module.payload.images if image.kind in _NATIVE}
    return len(majors) >= _MANY_MAJORS and not any(own <= each for each in lists)


def _loads_natively(module: Judged) -> bool:
    return module.verdict.verdict in (NATIVE, COMPATIBLE)


def _is_compiled(module: Judged) -> bool:
    """Whether the driver would compile a module, even if it is too old for its PTX, or some kernels do nothing then."""
    return module.verdict.verdict == JIT or module.verdict.cuda_error == UNSUPPORTED_PTX or _is_dead_text(module)


def _is_dead_text(module: Judged) -> bool:
    """Whether PTX that would be compiled has kernels without a body there."""
    return module.verdict.verdict == STUB and module.verdict.image is not None and module.verdict.image.kind == ImageKind.PTX


def _variants(modules: Sequence[Judged], arch: int, code: CodeReader) -> Iterator[Judged]:
    """The modules that would be compiled and are another generation's variant of kernels that load as they are.

    By their kernels: all are in modules that load without compiling, or all their names say another generation (``_sm75_``), or modules
    for the device's generation alone have the same templates: cuSPARSE's EllGemm for 7.0, 7.5, 8.0 and 8.6, beside one for the rest. Or by
    their target: no other module has code for that generation, so that it is what a compiler's default left beside another
    (cuSPARSELt's sm_52 and compute_52 beside sm_80), or because kernels are stubs in it.
    """
    compiled = [module for module in modules if _is_compiled(module)]
    native = [module for module in modules if _loads_natively(module)] if compiled else []
    names = frozenset(kernel.name for each in native for kernel in each.verdict.kernels)
    alone = [each for each in native if {arch_of(image) // 10 for image in each.payload.images} == {arch // 10}]
    families = frozenset(family(kernel.name) for each in alone for kernel in each.verdict.kernels)
    majors = Counter(number // 10 for module in modules if not module.verdict.vacant for number in _native_numbers(module))
    for module in compiled if names else ():
        target = 0 if module.verdict.image is None else arch_of(module.verdict.image)
        if _is_dead_text(module) or (majors[target // 10] == 1 and target in _native_numbers(module)):
            yield module
            continue
        own = code.names(module.node, module.payload)
        said = [generations_named(name) for name in own]
        if own and (names >= own or families.issuperset(map(family, own)) or all(each and arch // 10 not in each for each in said)):
            yield module


def _native_numbers(module: Judged) -> frozenset[int]:
    """The SM numbers for which a module has SASS."""
    return frozenset(arch_of(image) for image in module.payload.images if image.kind == ImageKind.SASS)


def _other_system(module: Judged, arch: int) -> bool:
    """Whether what is loaded is for Tegra and the device is not, or the other way round."""
    image = module.verdict.image
    return image is not None and image.kind == ImageKind.SASS and on_jetson_linux(arch_of(image)) != on_jetson_linux(arch)


def is_bare(module: Judged) -> bool:
    """Whether a module is an image in a host's data without a container: the program itself chooses which of them it loads."""
    return module.payload.kind in BARE_MODULES and module.payload.found_by != ("file",)


def is_for_others(module: Judged) -> bool:
    """Whether nothing shows that a module is meant for the device: it names the very GPUs that it is for, or is data to its host."""
    return is_bare(module) or (lacks(module) and only_suffixed(module.payload.images))


def is_chosen_by_host(modules: Sequence[Judged]) -> bool:
    """Whether a library chooses among images in its own data, and has none for the device.

    No rule says that it loads one of them here: cuequivariance-ops has cubins of sm_90a to sm_120a alone for some operations, and for
    every GPU other ways, compiled when they are needed.
    """
    useful = [module for module in modules if module.verdict.verdict != EMPTY]
    none = all(module.verdict.cuda_error in _NOTHING_THERE and is_for_others(module) for module in useful)
    return none and sum(map(is_bare, useful)) > 1


def lacks(module: Judged) -> bool:
    """Whether nothing in the module is for the device."""
    verdict = module.verdict
    return verdict.cuda_error in _NOTHING_THERE and verdict.image is None and verdict.verdict != EMPTY


def _loads(module: Judged) -> bool:
    return module.verdict.verdict in GOOD and module.verdict.verdict != EMPTY


def _straddles(module: Judged, arch: int, code: CodeReader) -> bool:
    """Whether a module has code for GPUs below the device and for GPUs above it: kernels that work, not stubs that a build left there."""
    images = sorted((image for image in module.payload.images if image.kind in _NATIVE), key=lambda image: image.size or 0)
    sides = [[image for image in images if arch_of(image) < arch], [image for image in images if arch_of(image) > arch]]
    if not all(sides):
        return False
    sides.sort(key=lambda side: side[0].size or 0)  # stubs are small
    return not any(all(code.is_hollow(module.node, image) for image in side) for side in sides)


def only_suffixed(images: Sequence[ImageEntry]) -> bool:
    """Whether all code has a suffix a or f: it is for the very GPUs that it names."""
    targets = [image.target for image in images if image.kind in _NATIVE]
    return bool(targets) and all(Target(target).suffix for target in targets)
