"""What a file asks of the driver, and what stands between GPU, driver and program before any module is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.gpus.drivers import (
    Driver,
    cuda_of_ptx,
    drivers_for_arch,
    first_driver_for_arch,
    first_driver_for_ptx,
    first_zstd_cuda,
    first_zstd_driver,
    last_cuda_on_jetson,
    minimum_for_toolkit,
    on_jetson_linux,
)
from fatpatch.gpus.generations import generation
from fatpatch.gpus.tables import version_key
from fatpatch.model.kinds import Codec, ContainerKind, ImageKind
from fatpatch.model.tree import ImageEntry, Node
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.module import ModuleVerdict
from fatpatch.verdicts.results import Judged, Need

_DRIVER_TOO_OLD: Final = 35
_NO_DEVICE: Final = 100
_MINOR_COMPATIBLE: Final = 11
_WITH_ARM: Final = lazy_pattern(r"(?:GH200|GB200|GB300|GB10|DGX Spark)\b")
"""Products that are sold with an Arm processor alone: Grace Hopper, Grace Blackwell, GB10 (NVIDIA's product pages)."""


def trouble(modules: Sequence[Judged], environment: Environment) -> tuple[int | None, str] | None:
    """What stands against GPU, driver and program together, before any module is loaded."""
    device, driver = environment.device, environment.driver
    if device.arch is None or driver is None:
        return None
    kind = f"{generation(device.arch)} (compute capability {device.arch // 10}.{device.arch % 10})".strip()
    if driver.oldest_arch > device.arch:
        return _NO_DEVICE, f"driver {driver.version} no longer drives {kind}; it starts with {driver.oldest_generation}"
    known = drivers_for_arch(device.arch)
    if known is not None and version_key(known[0])[:1] > version_key(driver.branch)[:1]:
        return _NO_DEVICE, f"driver {driver.version} does not know {kind} yet; the first that does is {known[0]}"
    for cuda in sorted(_runtimes(modules), key=version_key, reverse=True):
        least = minimum_for_toolkit(cuda)
        if too_old(driver, cuda):
            wanted = f"; it needs {least[0]} on Linux, {least[1]} on Windows" if least else ""
            return _DRIVER_TOO_OLD, f"the program was made with CUDA {cuda}, and driver {driver.version} is of CUDA {driver.cuda}{wanted}"
    return None


def against_host(node: Node, environment: Environment) -> tuple[int | None, str] | None:
    """What the host processor or system of a board has against a library: Jetson, Grace and DGX Spark are aarch64 and run Linux."""
    device = environment.device
    if device.arch is None or not (on_jetson_linux(device.arch) or device.segment == "jetson" or _WITH_ARM.match(device.name)):
        return None
    if node.container == ContainerKind.PE:
        return None, f"it is made for Windows ({node.detail}), and this board runs Linux"
    if node.container == ContainerKind.ELF and node.detail.startswith(("x86-64", "x86 ")):
        return None, "it is made for x86-64 processors, and this board has an aarch64 one: no program there can load it"
    return None


def too_old(driver: Driver, cuda: str) -> bool:
    """Whether a program of a CUDA release refuses a driver: below its minimum, which from CUDA 11 on holds for a whole major version."""
    has, wants, least = version_key(driver.cuda), version_key(cuda), minimum_for_toolkit(cuda)
    if has[0] != wants[0] or wants[0] < _MINOR_COMPATIBLE:
        return has < wants
    whole = "." in driver.version
    return whole and least is not None and version_key(driver.version) < min(map(version_key, least))


def out_of_reach(needed: Sequence[Need], last: str | None) -> bool:
    """Whether the last driver for the GPU is too old for what the file needs."""
    return bool(needed) and last is not None and version_key(needed[0].linux)[:1] > version_key(last)[:1]


def needs(modules: Sequence[Judged], environment: Environment) -> list[Need]:
    """What the driver must be able to do, the most demanding first; at most one of each kind. None where no desktop driver drives."""
    arch = environment.device.arch
    first = None if arch is None else first_driver_for_arch(arch)
    if arch is None or first is None:
        return []
    found = [Need(*first, f"drives {generation(arch) or 'this GPU'}")]
    images = _chosen(modules)
    isa = max(_ptx_versions(images), key=version_key, default=None)
    if isa is not None and (least := first_driver_for_ptx(isa)) is not None:
        found.append(Need(*least, f"compiles PTX {isa}"))
    if _has_zstd(images):
        found.append(Need(*first_zstd_driver(), "reads zstd-compressed code"))
    cuda = max(_runtimes(modules), key=version_key, default=None)
    if cuda is not None and (least := minimum_for_toolkit(cuda)) is not None:
        found.append(Need(*least, f"runs programs made with CUDA {cuda}"))
    return sorted(found, key=lambda need: version_key(need.linux), reverse=True)


def cuda_needed(modules: Sequence[Judged]) -> str | None:
    """The CUDA release that a driver must be of for the chosen PTX, the compression and the runtime; None when nothing is known."""
    images = _chosen(modules)
    found = {cuda for isa in _ptx_versions(images) if (cuda := cuda_of_ptx(isa)) is not None}
    if _has_zstd(images):
        found.add(first_zstd_cuda())
    return max(found | _runtimes(modules), key=version_key, default=None)


def beyond_jetson(modules: Sequence[Judged], environment: Environment) -> bool:
    """Whether code needs a newer CUDA than the last Jetson Linux for the GPU brings, as far as both are known."""
    arch = environment.device.arch
    last, needed = (None if arch is None else last_cuda_on_jetson(arch)), cuda_needed(modules)
    return last is not None and needed is not None and version_key(needed) > version_key(last)


def _chosen(modules: Sequence[Judged]) -> list[ImageEntry]:
    return [module.verdict.image for module in modules if module.verdict.image is not None]


def _ptx_versions(images: Sequence[ImageEntry]) -> frozenset[str]:
    return frozenset(image.code_version for image in images if image.kind == ImageKind.PTX and image.code_version)


def _has_zstd(images: Sequence[ImageEntry]) -> bool:
    return any(image.compression == Codec.ZSTD for image in images)


def _runtimes(modules: Sequence[Judged]) -> frozenset[str]:
    """The CUDA release whose runtime registers the modules: a wrapper is proof of a runtime, what made most images is its release.

    An image that was grafted may be of another release; where it stands against one other image, the older counts.
    """
    votes: Counter[str] = Counter()
    for module in modules:
        if module.payload.wrapper is not None:
            votes.update(filter(None, (_cuda_of(module.verdict), _release(module.verdict.origin))))
    if not votes:
        return frozenset()
    most = max(votes.values())
    return frozenset({min((cuda for cuda, count in votes.items() if count == most), key=version_key)})


def _release(toolkit: str | None) -> str | None:
    return toolkit[5:] if toolkit is not None and toolkit.startswith("CUDA ") else None


def _cuda_of(verdict: ModuleVerdict) -> str | None:
    """The CUDA release that made the chosen image: what it states, or the first that writes its PTX version."""
    if (stated := _release(verdict.toolkit)) is not None:
        return stated
    isas = _ptx_versions([] if verdict.image is None else [verdict.image])
    return next((cuda_of_ptx(isa) for isa in isas), None)
