"""From the options to the GPUs to judge for, each with the circumstances."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.amd import overridden
from fatpatch.gpus.devices import Device, find
from fatpatch.gpus.drivers import Driver, on_jetson_linux
from fatpatch.gpus.drivers import driver as driver_of
from fatpatch.gpus.fleet import every_target
from fatpatch.model.kinds import Vendor
from fatpatch.verdicts.environment import Environment


class GpuToJudge(NamedTuple):
    """A GPU to judge for; ``names`` are the products that it stands for in a fleet."""

    environment: Environment
    names: tuple[str, ...] = ()


def environments(
    gpus: Sequence[str],
    driver: str | None,
    *,
    force_ptx: bool,
    disable_ptx: bool,
    eager: bool,
    hsa_override: str | None,
    cuda: str | None = None,
) -> tuple[GpuToJudge, ...]:
    """The GPUs that the options name, each with the circumstances; "auto" asks this machine, "all" is every target known.

    A usage error for a name that is not known or not clear, and for what is asked of no GPU here.
    """
    try:
        subjects = _environments(gpus, driver, force_ptx, disable_ptx, eager, hsa_override)
    except InputError as error:
        raise click.UsageError(f"{error.message}\n  hint: {error.hint}" if error.hint else error.message) from error
    if cuda is not None:
        if not re.fullmatch(r"\d{1,2}(?:\.\d{1,2})?", cuda):
            raise click.BadParameter(f"expected a release such as 12.6, got {cuda!r}", param_hint="--cuda")
        subjects = tuple(subject._replace(environment=subject.environment._replace(cuda=cuda)) for subject in subjects)
    vendors = {subject.environment.device.vendor for subject in subjects}
    if hsa_override is not None and Vendor.AMD not in vendors:
        raise click.UsageError("--hsa-override is for AMD GPUs, and --gpu names none")
    if Vendor.NVIDIA not in vendors and (driver is not None or force_ptx or disable_ptx or eager):
        raise click.UsageError("--driver, --force-ptx-jit, --disable-ptx-jit and --eager are for NVIDIA GPUs, and --gpu names none")
    return subjects


def _environments(
    gpus: Sequence[str], driver: str | None, force_ptx: bool, disable_ptx: bool, eager: bool, hsa_override: str | None
) -> tuple[GpuToJudge, ...]:
    chosen: list[tuple[Device, tuple[str, ...]]] = []
    given = None if driver is None else driver_of(driver)
    for gpu in gpus:
        if gpu.strip().lower() == "auto":
            from fatpatch.gpus.local import local_devices, local_driver

            chosen += [(device, ()) for device in local_devices()]
            version = local_driver() if given is None else None
            given = given if version is None else driver_of(version)
        elif gpu == "all":
            chosen += every_target()
        else:
            chosen.append((find(gpu), ()))
    subjects = [GpuToJudge(_environment(device, given, force_ptx, disable_ptx, eager, hsa_override), names) for device, names in chosen]
    return tuple(dict.fromkeys(subjects))


def _environment(
    device: Device, driver: Driver | None, force_ptx: bool, disable_ptx: bool, eager: bool, hsa_override: str | None
) -> Environment:
    if device.vendor == Vendor.AMD:
        if hsa_override is not None:
            real, target = device.target, overridden(hsa_override)
            note = f"told to be {target} by HSA_OVERRIDE_GFX_VERSION={hsa_override}, which Linux alone reads"
            device = device._replace(target=target, note="; ".join(filter(None, (device.note, note))))
            return Environment(device, hsa_override=hsa_override, own_target=real)
        return Environment(device)
    own = device.arch is not None and on_jetson_linux(device.arch)
    return Environment(device, None if own else driver, force_ptx, disable_ptx, eager)
