"""The difference of one holder between two releases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.model.target import target_key
from fatpatch.release.gpus import GpuChange, changes
from fatpatch.release.pairing import ReleasePair
from fatpatch.verdicts.all_gpus import Answer
from fatpatch.verdicts.library_facts import REAL, STUB, Cell, LibraryFacts, ModuleKernels, TargetFacts

FIELDS = ("registers", "shared", "local", "spills", "code")
"""The numbers of a cell that are compared."""


class TargetChange(NamedTuple):
    """A target before and after; None where it is not there."""

    target: str
    old: TargetFacts | None
    new: TargetFacts | None


class ModuleChange(NamedTuple):
    """Modules of both releases (they share most of their kernels) whose targets differ so: how many, and the first in the new one."""

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    times: int
    first: str


class Moved(NamedTuple):
    """A kernel, and the targets that it lost or gained, or on which it became a stub or real, or has other code."""

    kernel: str
    targets: tuple[str, ...]


class PtxChange(NamedTuple):
    """The ISA versions of the PTX for one target; none where there is no such PTX."""

    target: str
    old: tuple[str, ...]
    new: tuple[str, ...]


class DriverChange(NamedTuple):
    """The lowest driver on Linux for GPUs that run both releases, by the targets that it is for."""

    old: str
    new: str
    targets: tuple[str, ...]


class Changed(NamedTuple):
    """A number (one of FIELDS) of a kernel on a target."""

    kernel: str
    target: str
    field: str
    old: int
    new: int


class LibraryDifference(NamedTuple):
    """All that differs; a holder that is gone or new has targets only.

    ``targets_lost`` and ``targets_gained`` are of kernels that both releases have, on targets that both have. ``other_bytes``: there is
    nothing else to tell, and the bytes are not the same; then ``other_code`` names the kernels whose code is another.
    """

    pair: ReleasePair
    targets: tuple[TargetChange, ...] = ()
    modules: tuple[ModuleChange, ...] = ()
    kernels_gained: tuple[str, ...] = ()
    kernels_lost: tuple[str, ...] = ()
    targets_lost: tuple[Moved, ...] = ()
    targets_gained: tuple[Moved, ...] = ()
    new_stubs: tuple[Moved, ...] = ()
    now_stubs: tuple[Moved, ...] = ()
    now_real: tuple[Moved, ...] = ()
    ptx: tuple[PtxChange, ...] = ()
    toolkits: tuple[tuple[str, ...], tuple[str, ...]] | None = None
    drivers: tuple[DriverChange, ...] = ()
    changed: tuple[Changed, ...] = ()
    gpus: tuple[GpuChange, ...] = ()
    other_bytes: bool = False
    other_code: tuple[Moved, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell; a new name alone is nothing."""
        return not any(self[1:])


def difference(
    pair: ReleasePair, threshold: float, old_answers: Mapping[str, Answer], new_answers: Mapping[str, Answer]
) -> LibraryDifference:
    """Compare the facts; a number counts when it changes by more than ``threshold`` (0.05: five percent) of what it was."""
    old, new = pair.old, pair.new
    if pair.unchanged:
        return LibraryDifference(pair)
    targets = tuple(_targets(old.targets if old else {}, new.targets if new else {}, threshold))
    if old is None or new is None:
        return LibraryDifference(pair, targets)
    gpus, drivers = tuple(changes(old_answers, new_answers)), tuple(_drivers(old_answers, new_answers))
    both = sorted(old.kernels.keys() & new.kernels.keys())
    found = _compared(pair, old, new, both, threshold)._replace(targets=targets, gpus=gpus, drivers=drivers)
    return found._replace(other_bytes=not threshold and found.empty)


def _compared(pair: ReleasePair, old: LibraryFacts, new: LibraryFacts, both: list[str], threshold: float) -> LibraryDifference:
    whole = old.targets.keys() & new.targets.keys()  # a target that is gone altogether is told once, not for each kernel
    return LibraryDifference(
        pair=pair,
        modules=tuple(_modules(old.modules, new.modules)),
        kernels_gained=tuple(sorted(new.kernels.keys() - old.kernels.keys())),
        kernels_lost=tuple(sorted(old.kernels.keys() - new.kernels.keys())),
        targets_lost=tuple(_only_here(old, new, both, whole)),
        targets_gained=tuple(_only_here(new, old, both, whole)),
        new_stubs=tuple(_born_dead(old, new)),
        now_stubs=tuple(_turned(old, new, both, REAL, STUB)),
        now_real=tuple(_turned(old, new, both, STUB, REAL)),
        ptx=tuple(_ptx(old.ptx, new.ptx)),
        toolkits=(old.toolkits, new.toolkits) if old.toolkits != new.toolkits else None,
        changed=tuple(_changed(old, new, both, threshold)),
    )


def _ordered(targets: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(targets, key=target_key))


def _targets(old: Mapping[str, TargetFacts], new: Mapping[str, TargetFacts], threshold: float) -> Iterator[TargetChange]:
    for target in _ordered(old.keys() | new.keys()):
        before, after = old.get(target), new.get(target)
        if before is None or after is None or before.modules != after.modules or _far(before, after, threshold):
            yield TargetChange(target, before, after)


def _far(before: TargetFacts, after: TargetFacts, threshold: float) -> bool:
    return any(_differs(was, now, threshold) for was, now in zip(before[1:], after[1:], strict=True))


def _differs(was: int | None, now: int | None, threshold: float) -> bool:
    if was is None or now is None:
        return was != now
    return abs(now - was) > threshold * was


def _modules(olds: Sequence[ModuleKernels], news: Sequence[ModuleKernels]) -> Iterator[ModuleChange]:
    """What became of the targets of each module that both releases have."""
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for old, new in same_modules(olds, news):
        if old.targets != new.targets:
            change = _ordered(new.targets - old.targets), _ordered(old.targets - new.targets)
            found.setdefault(change, []).append(new.locator)
    for (gained, lost), locators in sorted(found.items(), key=lambda item: -len(item[1])):
        yield ModuleChange(gained, lost, len(locators), locators[0])


def same_modules(olds: Sequence[ModuleKernels], news: Sequence[ModuleKernels]) -> Iterator[tuple[ModuleKernels, ModuleKernels]]:
    """The modules that are the same by their kernels: those with equal kernels and targets first, then those that share most kernels.

    Modules without kernels are nobody's.
    """
    waiting: dict[tuple[frozenset[str], frozenset[str]], list[ModuleKernels]] = {}
    for old in olds:
        waiting.setdefault((old.names, old.targets), []).append(old)
    rest = []
    for new in news:
        if new.names and (equal := waiting.get((new.names, new.targets))):
            yield equal.pop(0), new
        elif new.names:
            rest.append(new)
    left = {id(old): old for each in waiting.values() for old in each}
    by_name: dict[str, list[ModuleKernels]] = {}
    for old in left.values():
        for name in old.names:
            by_name.setdefault(name, []).append(old)
    for new in rest:
        shared = Counter(id(old) for name in new.names for old in by_name.get(name, ()) if id(old) in left)
        best = max(shared, key=lambda key: shared[key] / len(left[key].names | new.names), default=None)
        if best is not None and 2 * shared[best] >= len(left[best].names | new.names):
            yield left.pop(best), new


def _only_here(here: LibraryFacts, there: LibraryFacts, both: list[str], whole: set[str]) -> Iterator[Moved]:
    for name in both:
        if targets := (here.kernels[name].keys() - there.kernels[name].keys()) & whole:
            yield Moved(name, _ordered(targets))


def _turned(old: LibraryFacts, new: LibraryFacts, both: list[str], was: str, now: str) -> Iterator[Moved]:
    for name in both:
        before, after = old.kernels[name], new.kernels[name]
        targets = [target for target in before.keys() & after.keys() if (before[target].body, after[target].body) == (was, now)]
        if targets:
            yield Moved(name, _ordered(targets))


def _born_dead(old: LibraryFacts, new: LibraryFacts) -> Iterator[Moved]:
    """New kernels that are stubs, and on which targets."""
    for name in sorted(new.kernels.keys() - old.kernels.keys()):
        if targets := [target for target, cell in new.kernels[name].items() if cell.body == STUB]:
            yield Moved(name, _ordered(targets))


def _drivers(old: Mapping[str, Answer], new: Mapping[str, Answer]) -> Iterator[DriverChange]:
    found: dict[tuple[str, str], list[str]] = {}
    for target, after in new.items():
        before = old.get(target)
        if before is not None and before.driver and after.driver and before.driver != after.driver:
            found.setdefault((before.driver, after.driver), []).append(target)
    for (was, now), targets in found.items():
        yield DriverChange(was, now, tuple(targets))


def _ptx(old: Mapping[str, tuple[str, ...]], new: Mapping[str, tuple[str, ...]]) -> Iterator[PtxChange]:
    for target in _ordered(old.keys() | new.keys()):
        if old.get(target) != new.get(target):
            yield PtxChange(target, old.get(target, ()), new.get(target, ()))


def _changed(old: LibraryFacts, new: LibraryFacts, both: list[str], threshold: float) -> Iterator[Changed]:
    for name in both:
        for target in _ordered(old.kernels[name].keys() & new.kernels[name].keys()):
            yield from _numbers(name, target, old.kernels[name][target], new.kernels[name][target], threshold)


def _numbers(name: str, target: str, before: Cell, after: Cell, threshold: float) -> Iterator[Changed]:
    for field in FIELDS:
        was, now = getattr(before, field), getattr(after, field)
        if was is not None and now is not None and _differs(was, now, threshold):
            yield Changed(name, target, field, was, now)
