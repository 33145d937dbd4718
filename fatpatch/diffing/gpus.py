"""Which GPUs fare otherwise with the new release: asked of doctor for every target of the GPU table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fatpatch.coverage import payloads_below
from fatpatch.gpus.devices import family, well_known
from fatpatch.gpus.fleet import by_target, every_target
from fatpatch.verdicts.doctor import Doctor, libraries
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.outcome import HOPELESS, outcome_of, works

Answer = tuple[str, bool]
"""The outcome (a key of OUTCOMES), and whether the file runs."""

_NOTHING: Answer = ("no-code", False)
_SERIES = re.compile(r"\b(?:GeForce (GTX|RTX) (\d{1,2})(\d\d)|Radeon (RX) (\d)(\d{2,3}))\b")
_ENOUGH = 3


class GpuChange(NamedTuple):
    """The GPUs of one target; ``names`` are its products, those that people know first; ``series`` such as "GTX 10 series"."""

    target: str
    family: str
    series: str
    names: tuple[str, ...]
    old: str
    new: str
    worked: bool
    works: bool

    @property
    def stops(self) -> bool:
        """Whether the GPUs ran the old release and surely do not run the new one."""
        return self.worked and self.new in HOPELESS

    @property
    def starts(self) -> bool:
        """Whether the GPUs did not run the old release, or not surely, and run the new one."""
        return self.works and not self.worked


def answers(doctor: Doctor) -> dict[str, dict[str, Answer]]:
    """By the locator of the holder, then by target, each with the best driver that its GPUs can have."""
    vendors = {payload.vendor for _, payload in payloads_below(doctor.node)}
    found: dict[str, dict[str, Answer]] = {}
    for device, _ in every_target():
        if device.vendor in vendors:
            for node, verdict in libraries(doctor.judge(Environment(device))):
                found.setdefault(node.locator, {})[device.target] = outcome_of(verdict), works(verdict)
    return found


def changes(old: Mapping[str, Answer], new: Mapping[str, Answer]) -> Iterator[GpuChange]:
    """The targets whose GPUs get another outcome."""
    for target, devices in by_target().items():
        before, after = old.get(target, _NOTHING), new.get(target, _NOTHING)
        if _matters(before, after):
            names = well_known(devices)
            yield GpuChange(target, family(target), _series(names), names, before[0], after[0], before[1], after[1])


def _matters(before: Answer, after: Answer) -> bool:
    """Whether the difference is one to a user: between two ways of not running there is none."""
    return before != after and not (before[0] in HOPELESS and after[0] in HOPELESS)


def _series(names: Sequence[str]) -> str:
    """``GTX 10 series`` where several names with a number are of one series; empty else."""
    counts: Counter[str] = Counter()
    for found in filter(None, map(_SERIES.search, names)):
        line, number, rest = found.group(1, 2, 3) if found[1] else found.group(4, 5, 6)
        counts[f"{line} {number if len(number) == 2 else number + '0' * len(rest)} series"] += 1
    return ", ".join(name for name, count in counts.most_common(2) if count >= _ENOUGH)
