"""What changes for each GPU with the new release: asked of doctor for every target of the GPU table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.devices import family, well_known
from fatpatch.gpus.fleet import by_target, series
from fatpatch.verdicts.all_gpus import NOTHING, Answer
from fatpatch.verdicts.outcome import HOPELESS


class GpuChange(NamedTuple):
    """The GPUs of one target; ``names`` are its products, those that people know first; ``series`` such as "GTX 10 series".

    ``why`` says what decides the new outcome.
    """

    target: str
    family: str
    series: str
    names: tuple[str, ...]
    old: str
    new: str
    worked: bool
    works: bool
    why: str

    @property
    def stops(self) -> bool:
        """Whether the GPUs ran the old release and surely do not run the new one."""
        return self.worked and self.new in HOPELESS

    @property
    def starts(self) -> bool:
        """Whether the GPUs did not run the old release, or not surely, and run the new one."""
        return self.works and not self.worked


def changes(old: Mapping[str, Answer], new: Mapping[str, Answer]) -> Iterator[GpuChange]:
    """The targets whose GPUs get another outcome."""
    for target, devices in by_target().items():
        before, after = old.get(target, NOTHING), new.get(target, NOTHING)
        if _matters(before, after):
            names = well_known(devices)
            yield GpuChange(
                target, family(target), series(names), names, before.outcome, after.outcome, before.works, after.works, after.why
            )


def _matters(before: Answer, after: Answer) -> bool:
    """Whether the difference is one to a user: between two ways of not running there is none."""
    return before.outcome != after.outcome and not (before.outcome in HOPELESS and after.outcome in HOPELESS)
