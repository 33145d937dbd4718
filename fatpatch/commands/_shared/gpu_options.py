"""The GPUs that --gpu and --driver name, where nothing else is asked of the environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fatpatch.base.errors import InputError
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver as driver_of
from fatpatch.gpus.drivers import on_jetson_linux
from fatpatch.model.kinds import Vendor
from fatpatch.verdicts.environment import Environment

if TYPE_CHECKING:
    from fatpatch.gpus.devices import Device


def environments(gpus: Sequence[str], driver: str | None) -> tuple[Environment, ...]:
    """An environment for each GPU, "auto" those of this machine; the driver is for NVIDIA's that do not bring their own.

    A usage error for a name that is not known, with what may be meant.
    """
    try:
        given = None if driver is None else driver_of(driver)
        devices = [device for gpu in gpus for device in _devices(gpu)]
    except InputError as error:
        raise click.UsageError(f"{error.message}\n  hint: {error.hint}" if error.hint else error.message) from error
    own = [device.vendor != Vendor.NVIDIA or (device.arch is not None and on_jetson_linux(device.arch)) for device in devices]
    return tuple(dict.fromkeys(Environment(device, None if its else given) for device, its in zip(devices, own, strict=True)))


def _devices(gpu: str) -> Sequence[Device]:
    if gpu.strip().lower() != "auto":
        return (find(gpu),)
    from fatpatch.gpus.local import local_devices

    return local_devices()
