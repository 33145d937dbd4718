"""What a file asks of the driver, and what stands between GPU, driver and program before any module is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fatpatch.gpus.drivers import (
    Driver,
    cuda_of_ptx,
    drivers_for_arch,
    first_driver_for_arch,
    first_driver_for_ptx,
    first_zstd_driver,
    minimum_for_toolkit,
)
from fatpatch.gpus.generations import generation
from fatpatch.gpus.tables import version_key
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judged import Judged, Need
from fatpatch.verdicts.module import ModuleVerdict

_DRIVER_TOO_OLD: Final = 35
_NO_DEVICE: Final = 100
_MINOR_COMPATIBLE: Final = 11
_ZSTD_SINCE: Final = "12.4"


def trouble(modules: Sequence[Judged], environment: Environment) -> tuple[int, str] | None:
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
        if _too_old(driver, cuda, least):
            wanted = f"; it needs {least[0]} on Linux, {least[1]} on Windows" if least else ""
            return _DRIVER_TOO_OLD, f"the program was made with CUDA {cuda}, and driver {driver.version} is of CUDA {driver.cuda}{wanted}"
    return None


def _too_old(driver: Driver, cuda: str, least: tuple[str, str] | None) -> bool:
    """Whether a program of a CUDA release refuses a driver: below its minimum, which from CUDA 11 on holds for a whole major version."""
    has, wants = version_key(driver.cuda), version_key(cuda)
    if has[0] != wants[0] or wants[0] < _MINOR_COMPATIBLE:
        return has < wants
    whole = "." in driver.version and least is not None
    return whole and least is not None and version_key(driver.version) < min(map(version_key, least))


def last_driver(environment: Environment) -> str | None:
    """The last branch that drives the GPU; None when the newest does, or none is known."""
    known = None if environment.device.arch is None else drivers_for_arch(environment.device.arch)
    return None if known is None else known[1]


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
    loaded = [module.verdict for module in modules if module.verdict.image is not None]
    isas = {image.code_version for verdict in loaded if (image := verdict.image) is not None and image.kind == "ptx" and image.code_version}
    if isas:
        isa = max(isas, key=version_key)
        least = first_driver_for_ptx(isa)
        if least is not None:
            found.append(Need(*least, f"compiles PTX {isa}"))
    if any(verdict.image is not None and verdict.image.compression == "zstd" for verdict in loaded):
        found.append(Need(*first_zstd_driver(), "reads zstd-compressed code"))
    if runtimes := _runtimes(modules):
        cuda = max(runtimes, key=version_key)
        least = minimum_for_toolkit(cuda)
        if least is not None:
            found.append(Need(*least, f"runs programs made with CUDA {cuda}"))
    return sorted(found, key=lambda need: version_key(need.linux), reverse=True)


def cuda_needed(modules: Sequence[Judged]) -> str | None:
    """The CUDA release that a driver must be of for the chosen PTX, the compression and the runtime; None when nothing is known."""
    images = [module.verdict.image for module in modules if module.verdict.image is not None]
    found = {cuda for image in images if image.kind == "ptx" and image.code_version and (cuda := cuda_of_ptx(image.code_version))}
    if any(image.compression == "zstd" for image in images):
        found.add(_ZSTD_SINCE)
    return max(found | _runtimes(modules), key=version_key, default=None)


def _runtimes(modules: Sequence[Judged]) -> frozenset[str]:
    """The CUDA releases whose runtime registers modules: a wrapper is proof of the runtime, its machine code of the release."""
    return frozenset(cuda for module in modules if module.payload.wrapper is not None and (cuda := _cuda_of(module.verdict)) is not None)


def _cuda_of(verdict: ModuleVerdict) -> str | None:
    """The CUDA release that made the chosen image: what it states, or the first that writes its PTX version."""
    if verdict.toolkit is not None and verdict.toolkit.startswith("CUDA "):
        return verdict.toolkit[5:]
    image = verdict.image
    return cuda_of_ptx(image.code_version) if image is not None and image.kind == "ptx" and image.code_version else None
