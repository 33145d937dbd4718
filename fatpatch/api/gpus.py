"""GPUs by their names, the circumstances in which one loads code, and what the tables say of targets, drivers and toolkits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.amd import overridden
from fatpatch.gpus.devices import Device, all_devices, candidates, family, find, well_known
from fatpatch.gpus.drivers import Driver, drivers_for_arch, first_zstd_driver, on_jetson_linux, ptx_of_driver
from fatpatch.gpus.drivers import driver as driver_of
from fatpatch.gpus.fleet import by_target, every_target, series
from fatpatch.gpus.toolkits import is_newest, known_archs, newest_toolkit_for, toolkits_for
from fatpatch.model.kinds import Vendor
from fatpatch.model.target import PTX, SASS, Target
from fatpatch.verdicts.environment import Environment

__all__ = [
    "Circumstances",
    "Device",
    "Driver",
    "Environment",
    "GpuToJudge",
    "by_target",
    "cuda_release",
    "devices_named",
    "driver_of",
    "drivers_for_arch",
    "environment_of",
    "environments",
    "family",
    "find",
    "first_zstd_driver",
    "gpus_to_judge",
    "is_newest",
    "known_archs",
    "known_targets",
    "matching_devices",
    "newest_toolkit_for",
    "own_devices",
    "product_names",
    "ptx_of_driver",
    "ptxas_target",
    "series",
    "toolkits_for",
    "well_known",
]

_AUTO: Final = "auto"


class GpuToJudge(NamedTuple):
    """A GPU to judge for; ``names`` are the products that it stands for in a fleet."""

    environment: Environment
    names: tuple[str, ...] = ()


class Circumstances(NamedTuple):
    """What holds on every GPU: the version of the driver, what environment variables ask of it, the CUDA release of the program."""

    driver: str | None = None
    force_ptx: bool = False
    disable_ptx: bool = False
    eager: bool = False
    hsa_override: str | None = None
    cuda: str | None = None


def own_devices() -> Sequence[Device]:
    """The GPUs of this machine; InputError when there is none, or they cannot be asked."""
    from fatpatch.gpus.local import local_devices

    return local_devices()


def devices_named(text: str) -> tuple[Device, ...]:
    """The GPU that a text names; of "auto" those of this machine. InputError for a name that is not known or not clear."""
    return tuple(own_devices()) if text.strip().lower() == _AUTO else (find(text),)


def matching_devices(text: str | None) -> Sequence[Device]:
    """All GPUs that a text may mean: part of a name, a target, a generation, "auto"; without one all that are known.

    InputError where it means none.
    """
    if text is None:
        return all_devices()
    if text.strip().lower() == _AUTO:
        return own_devices()
    return candidates(text) or (find(text),)  # find knows what to say when nothing fits


def environments(gpus: Sequence[str], driver: str | None) -> tuple[Environment, ...]:
    """An environment for each GPU, each once. InputError as ``devices_named``, and for one without a target."""
    given = Circumstances(driver)
    named = None if driver is None else driver_of(driver)
    devices = [device for gpu in gpus for device in devices_named(gpu)]
    for device in devices:
        if device.vendor == Vendor.NVIDIA and device.arch is None:
            raise InputError(f"{device.name} has no target")
    return tuple(dict.fromkeys(environment_of(device, named, given) for device in devices))


def gpus_to_judge(gpus: Sequence[str], given: Circumstances) -> tuple[GpuToJudge, ...]:
    """The GPUs that are named; "auto" asks this machine, its driver included, "all" is every target known. InputError for another name."""
    chosen: list[tuple[Device, tuple[str, ...]]] = []
    driver = None if given.driver is None else driver_of(given.driver)
    for gpu in gpus:
        if gpu == "all":
            chosen += every_target()
            continue
        chosen += [(device, ()) for device in devices_named(gpu)]
        if driver is None and gpu.strip().lower() == _AUTO:
            from fatpatch.gpus.local import local_driver

            version = local_driver()
            driver = None if version is None else driver_of(version)
    return tuple(dict.fromkeys(GpuToJudge(environment_of(device, driver, given), names) for device, names in chosen))


def cuda_release(text: str) -> str:
    """A CUDA release such as 12.6; InputError for what is none."""
    if not re.fullmatch(r"\d{1,2}(?:\.\d{1,2})?", text, re.ASCII):
        raise InputError(f"expected a release such as 12.6, got {text!r}")
    return text


def environment_of(device: Device, driver: Driver | None, given: Circumstances) -> Environment:
    """The circumstances on one GPU: a driver is for NVIDIA's that do not bring their own, HSA_OVERRIDE_GFX_VERSION for AMD's.

    InputError for a value of it that names no processor.
    """
    if device.vendor != Vendor.AMD:
        own = device.arch is not None and on_jetson_linux(device.arch)
        known = None if own or device.vendor != Vendor.NVIDIA else driver
        return Environment(device, known, given.force_ptx, given.disable_ptx, given.eager, cuda=given.cuda)
    if given.hsa_override is None:
        return Environment(device, cuda=given.cuda)
    real, target = device.target, overridden(given.hsa_override)
    note = f"told to be {target} by HSA_OVERRIDE_GFX_VERSION={given.hsa_override}, which Linux alone reads"
    device = device._replace(target=target, note="; ".join(filter(None, (device.note, note))))
    return Environment(device, hsa_override=given.hsa_override, own_target=real, cuda=given.cuda)


def ptxas_target(text: str) -> str:
    """``sm_61`` of itself or of the name of a GPU that ptxas compiles for; InputError for another."""
    if Target(text).form in (SASS, PTX):
        return text
    devices = {device.target: device for device in devices_named(text)}
    if len(devices) != 1:
        raise InputError(f"this machine has GPUs of {len(devices)} kinds", hint=f"name one of {', '.join(sorted(devices))}")
    (device,) = devices.values()
    if device.arch is None:
        raise InputError(f"{device.name} is not an NVIDIA GPU: ptxas makes no code for it")
    return device.target


def product_names(part: str) -> list[str]:
    """The names of products that contain a text, in any case of letters."""
    from fatpatch.gpus.products import products

    return list(dict.fromkeys(item.name for item in products() if part.lower() in item.name.lower()))


def known_targets() -> list[str]:
    """What a target may be called: of every architecture that a toolkit compiles, and of AMD's processors."""
    from fatpatch.gpus.tables import table

    names = [f"{kind}_{arch}" for kind in ("sm", "compute", "lto") for arch in sorted(known_archs())]
    return names + [row["gfx"] for row in table("amd_targets")]
