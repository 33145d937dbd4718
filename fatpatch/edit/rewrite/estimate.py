"""Sizes after compression from a sample of the images: what a dry run and ``inspect --what-if`` say unless all are to be compressed.

Images are drawn in proportion to their stored size, apart for each kind, codec and class of size (systematic sampling), so that the mean
of new over old size is that of all bytes. The margin is that of Student's t for 95 percent, of the images that were not drawn.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Mapping, Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.payload.entry import entry_header
from fatpatch.edit.rewrite.packing import EntryTask, Packed, PackTask
from fatpatch.model.kinds import Codec

_BUDGET, _SLOW_BUDGET, _SLOW_LEVEL = 96 << 20, 12 << 20, 16
"""Unpacked bytes to compress, or little more: some seconds, also from that level of zstd on, where a second does little more than 1 MB."""
_FEWEST = 3
_CLASSES = (1 << 16, 1 << 20)
"""Unpacked sizes between which images gain differently."""


class Estimate(NamedTuple):
    """``compressed`` of ``images`` were compressed; the stored bytes of all together are so near to those of the plan: ``margin``."""

    compressed: int
    images: int
    margin: int


def sample_of(tasks: Sequence[PackTask], level: int) -> Mapping[int, int] | None:
    """The numbers of the tasks to do, each with how often it was drawn; None where there is so little that all are done."""
    total = sum(task.weight for task in tasks)
    budget = _SLOW_BUDGET if level >= _SLOW_LEVEL else _BUDGET
    if total <= budget:
        return None
    drawn = {number: 1 for number, task in enumerate(tasks) if not isinstance(task, EntryTask)}
    for stratum in _strata(tasks).values():
        stored = sum(task.entry.size for _, task in stratum)
        typical = sum(task.entry.size * task.weight for _, task in stratum) / stored
        share = budget * sum(task.weight for _, task in stratum) / total
        drawn |= _systematic(stratum, stored, max(_FEWEST, math.ceil(share / max(typical, 1))))
    return drawn if len(drawn) < len(tasks) else None


def _strata(tasks: Sequence[PackTask]) -> dict[tuple[str, str, int], list[tuple[int, EntryTask]]]:
    """The entries by kind, codec and class of size, each with its number, in order of size."""
    strata: dict[tuple[str, str, int], list[tuple[int, EntryTask]]] = {}
    for number, task in enumerate(tasks):
        if isinstance(task, EntryTask):
            key = task.image.kind, task.image.compression, bisect.bisect(_CLASSES, task.weight)
            strata.setdefault(key, []).append((number, task))
    return {key: sorted(found, key=lambda each: each[1].entry.size) for key, found in strata.items()}


def _systematic(stratum: Sequence[tuple[int, EntryTask]], stored: int, draws: int) -> dict[int, int]:
    """So many points at equal distances along the stored bytes, each drawing the image that it lies in."""
    if draws >= len(stratum):
        return {number: 1 for number, _ in stratum}
    drawn: dict[int, int] = {}
    end, taken = 0, 0
    for number, task in stratum:
        end += task.entry.size
        points = math.ceil(end * draws / stored - 0.5)  # those in the middle of each of the equal parts
        if points > taken:
            drawn[number] = points - taken
            taken = points
    return drawn


def estimated(tasks: Sequence[PackTask], drawn: Mapping[int, int], done: Mapping[int, Packed], codec: str) -> tuple[list[Packed], Estimate]:
    """What all tasks come to: entries that were not drawn have the size to expect, and bytes that mean nothing."""
    results = [done.get(number) for number in range(len(tasks))]
    variance = 0.0
    for stratum in _strata(tasks).values():
        ratios = [
            ratio
            for number, task in stratum
            if number in drawn and (ratio := _ratio(task, done[number])) is not None
            for _ in range(drawn[number])
        ]
        rest = [(number, task) for number, task in stratum if number not in drawn]
        mean = statistics.fmean(ratios) if ratios else 1.0
        for number, task in rest:
            results[number] = _stand_in(task, mean, codec)
        if rest and len(ratios) > 1:
            sizes = [task.entry.size for _, task in rest]
            spread = statistics.stdev(ratios) * (2 + 5 / (len(ratios) - 1))  # a little above Student's t
            variance += spread**2 * (sum(sizes) ** 2 / len(ratios) + sum(size**2 for size in sizes))
    return results, Estimate(len(drawn), len(tasks), math.ceil(math.sqrt(variance)))


def _ratio(task: EntryTask, result: Packed) -> float | None:
    """New over old size; None when the image could not be read."""
    size = task.entry.size if result is None else result.size if isinstance(result, Source) else None
    return None if size is None else size / task.entry.size


def _stand_in(task: EntryTask, ratio: float, codec: str) -> Source | None:
    """An entry of the size to expect; the old entry where the new one is not smaller and not wanted for its codec."""
    room = round(task.entry.size * ratio) - task.entry.header.header_size
    stored = max(room - room % 8, 8)
    if stored + task.entry.header.header_size >= task.entry.size and not task.freed(codec):
        return None
    extension = task.extension
    head = entry_header(task.entry.header, extension, stored, task.weight, codec if stored < task.weight else Codec.NONE)
    old = task.source.slice(task.entry.offset + task.entry.header.header_size, task.entry.header.payload_size)
    whole, part = divmod(stored, old.size)
    return Source.joined([Source.of(head + extension), *[old] * whole, old.slice(0, part)])
