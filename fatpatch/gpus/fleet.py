"""Every target that a GPU of the tables has: whom a release can serve at all."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence

from fatpatch.base.patterns import lazy_pattern
from fatpatch.gpus.devices import Device, all_devices, find, well_known
from fatpatch.gpus.generations import generation

_OLDEST = 50
_SERIES = lazy_pattern(r"\b(?:GeForce (GTX|RTX) (\d{1,2})(\d\d)|Radeon (RX) (\d)(\d{2,3}))\b")
_ENOUGH = 3


@functools.lru_cache(maxsize=1)
def by_target() -> Mapping[str, Sequence[Device]]:
    """The products of each target; what no driver of the last years drives is left out."""
    groups: dict[str, list[Device]] = {}
    for device in all_devices():
        if device.arch is None or device.arch >= _OLDEST:
            groups.setdefault(device.target, []).append(device)
    return groups


@functools.lru_cache(maxsize=1)
def every_target() -> Sequence[tuple[Device, tuple[str, ...]]]:
    """One device for each target, with its generation and the names of its products."""
    result = []
    for target, devices in by_target().items():
        first = find(target)
        family = generation(first.arch) if first.arch is not None else ""
        result.append((first, (*([family] if family else []), *well_known(devices))))
    return result


def series(names: Sequence[str]) -> str:
    """``GTX 10 series`` where several names with a number are of one series; empty else."""
    counts: Counter[str] = Counter()
    for found in filter(None, map(_SERIES.search, names)):
        line, number, rest = found.group(1, 2, 3) if found[1] else found.group(4, 5, 6)
        counts[f"{line} {number if len(number) == 2 else number + '0' * len(rest)} series"] += 1
    return ", ".join(name for name, count in counts.most_common(2) if count >= _ENOUGH)
