"""Every target that a GPU of the tables has: whom a release can serve at all."""

from __future__ import annotations

from fatpatch.gpus.devices import Device, all_devices, find, well_known
from fatpatch.gpus.generations import generation

_OLDEST = 50


def by_target() -> dict[str, list[Device]]:
    """The products of each target; what no driver of the last years drives is left out."""
    groups: dict[str, list[Device]] = {}
    for device in all_devices():
        if device.arch is None or device.arch >= _OLDEST:
            groups.setdefault(device.target, []).append(device)
    return groups


def every_target() -> list[tuple[Device, tuple[str, ...]]]:
    """One device for each target, with its generation and the names of its products."""
    result = []
    for target, devices in by_target().items():
        first = find(target)
        family = generation(first.arch) if first.arch is not None else ""
        result.append((first, (*([family] if family else []), *well_known(devices))))
    return result
