"""Modules of a library that say nothing about a device: empty ones, input for a linker, and code for other generations.

A verdict below "will run" needs evidence that the device is meant to run what is missing. A program that picks modules by GPU, as
NVIDIA's own libraries do, never loads those here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fatpatch.gpus.drivers import on_jetson_linux
from fatpatch.model.kinds import BARE_MODULES, ImageKind, Vendor
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Payload
from fatpatch.verdicts.facts import arch_of
from fatpatch.verdicts.linking import is_linked, is_relocatable
from fatpatch.verdicts.load_result import INVALID_IMAGE, NO_IMAGE, NOT_FOUND
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, JIT, NATIVE
from fatpatch.verdicts.names import generations_named
from fatpatch.verdicts.results import GOOD, Judged

_NATIVE: Final = frozenset({"sass", "ptx"})
_FOR_LINKERS: Final = frozenset({"lto", "tileir", "index", "bitcode"})
_FEW: Final = 50
"""So many times as many modules without code for the device as with it: the latter are what a compiler's default target left."""
_MANY_MAJORS: Final = 3
"""Major versions from which on a module's targets are a list for a build, rather than the generation that it is made for."""
_NOTHING_THERE: Final = frozenset({NO_IMAGE, NOT_FOUND})


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


def elsewhere(modules: Sequence[Judged], arch: int, *, picks: bool = False) -> Iterator[Judged]:
    """Modules for other generations, among others of the same library that load with kernels.

    Their targets do not straddle the device: all are above it, or all below. A module that was forgotten in a build lacks one generation
    and has those on both sides; not so in libraries that pick modules by GPU (``picks``), where one may be for 7.5 and 10.0 alone.
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
        few, away = loading * _FEW < max(len(lacking), 1), frozenset(map(id, lacking))
        lists = {_targets(module) for module in own if _loads(module)}
        native = frozenset(kernel.name for module in own if _loads_natively(module) for kernel in module.verdict.kernels)
        for module in own:
            if is_emptied(module.payload):
                apart = natively
            elif is_bare(module):
                apart = module.verdict.verdict not in GOOD or _other_system(module, arch)
            elif _other_system(module, arch):
                apart = any(_loads(each) and not _other_system(each, arch) for each in own)
            elif id(module) in away:
                apart = not few and (picks or not (straddles(module.payload.images, arch) or _forgotten(module, lists)))
            else:
                apart = picks and module.verdict.verdict == JIT and _is_variant(module, native, arch)
            if apart:
                yield module


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


def _is_variant(module: Judged, native: frozenset[str], arch: int) -> bool:
    """Whether a module that would be compiled is another generation's variant of kernels that load as they are.

    By its kernels: all of them are in modules that load without compiling, or all their names say another generation (``_sm75_``).
    """
    names = [kernel.name for kernel in module.verdict.kernels]
    if not names or not native:
        return False
    said = [found for name in names if (found := generations_named(name))]
    return native.issuperset(names) or (len(said) == len(names) and all(arch // 10 not in each for each in said))


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


def straddles(images: Sequence[ImageEntry], arch: int) -> bool:
    """Whether a module has code for GPUs below the device and for GPUs above it."""
    numbers = [arch_of(image) for image in images if image.kind in _NATIVE]
    return any(number < arch for number in numbers) and any(number > arch for number in numbers)


def only_suffixed(images: Sequence[ImageEntry]) -> bool:
    """Whether all code has a suffix a or f: it is for the very GPUs that it names."""
    targets = [image.target for image in images if image.kind in _NATIVE]
    return bool(targets) and all(Target(target).suffix for target in targets)
