"""Options that name a target for ptxas, and kernels of a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from fatpatch.base.errors import EditError, InputError
from fatpatch.gpus.devices import Device, find
from fatpatch.model.target import PTX, SASS, Target
from fatpatch.retargeting.run import Retargeted


def target_named(text: str, option: str) -> str:
    """``sm_61`` of itself or of the name of a GPU; a usage error for what is neither."""
    if Target(text).form in (SASS, PTX):
        return text
    try:
        device = _own() if text.strip().lower() == "auto" else find(text)
    except InputError as error:
        raise click.BadParameter(f"{error.message}\n  hint: {error.hint}", param_hint=option) from error
    if device.arch is None:
        raise click.BadParameter(f"{device.name} is not an NVIDIA GPU: ptxas makes no code for it", param_hint=option)
    return device.target


def _own() -> Device:
    """The GPU of this machine; InputError when there is none, or there are several kinds."""
    from fatpatch.gpus.local import local_devices

    devices = {device.target: device for device in local_devices()}
    if len(devices) != 1:
        raise InputError(f"this machine has GPUs of {len(devices)} kinds", hint=f"name one of {', '.join(sorted(devices))}")
    return next(iter(devices.values()))


def refuse_unknown(kernels: Iterable[str], found: Sequence[Retargeted]) -> None:
    """EditError for a kernel that no module has."""
    there = {verdict.kernel for each in found for verdict in each.verdicts}
    for name in kernels:
        if name not in there:
            raise EditError(f"no kernel is called {name!r}", hint="'fatpatch retarget -v' lists them by their mangled names")
