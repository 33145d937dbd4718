"""Which modules of a library stand for the others: those that lie apart, by their number and by their bytes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from builders.fatbin import entry

from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.scan.packed_modules import PackedModules
from fatpatch.scan.seen_modules import Seen

Targets = tuple[int, ...]
USUAL = (60, 75, 86)


def headers(targets: Targets) -> list[Header]:
    return [Header._make(HEADER.unpack_from(entry(bytes(4000), kind=2, major=1, minor=7, arch=arch))) for arch in targets]


def seen(
    sizes: list[int], read: dict[int, Targets], begun: dict[int, Targets] | None = None, ended: dict[int, Targets] | None = None
) -> Seen:
    """What was seen of a library with modules of these sizes."""
    full = {index: headers(targets) for index, targets in read.items()}
    modules = SimpleNamespace(
        modules=[(0, size) for size in sizes],
        read=full,
        met={("sass", f"sm_{arch}") for targets in read.values() for arch in targets},
        begun={index: headers(targets) for index, targets in (begun or {}).items()},
        ended={index: headers(targets) for index, targets in (ended or {}).items()},
    )
    return Seen(cast(PackedModules, modules))


def test_modules_that_lie_apart_stand_for_all() -> None:
    assert seen([10] * 40, dict.fromkeys((2, 15, 22, 33), USUAL)).stands_for_all()
    assert not seen([10] * 40, dict.fromkeys((15, 22, 33), USUAL)).stands_for_all(), "too few"
    assert not seen([10] * 40, dict.fromkeys((18, 20, 22, 39), USUAL)).stands_for_all(), "the first 18 of 40 were not seen"


def test_few_modules_that_are_most_of_the_bytes_are_not_passed_over() -> None:
    """As in xgboost 1.7: a tenth of the modules with most of the bytes, and those of a static library behind them."""
    sizes = [200] * 4 + [10] * 36
    assert not seen(sizes, dict.fromkeys((4, 12, 20, 30), USUAL)).stands_for_all()
    assert seen(sizes, dict.fromkeys((1, 4, 12, 20, 30), USUAL)).stands_for_all()


def test_modules_for_other_targets() -> None:
    assert not seen([10] * 40, {2: USUAL, 3: (75,), 15: USUAL, 22: (75,), 33: USUAL, 34: (75,)}).stands_for_all(), "alternating"
    assert seen([10] * 40, {2: USUAL, 12: USUAL, 22: (75,), 25: (75,), 33: (75,)}).stands_for_all(), "runs"


def test_modules_that_were_read_in_part() -> None:
    apart = dict.fromkeys((12, 25, 36, 38), USUAL)
    sizes = [60] * 12 + [10] * 28
    assert not seen(sizes, apart).stands_for_all()
    assert seen(sizes, apart, ended={5: (75, 86)}).stands_for_all(), "the last two of three images are like"
    assert not seen(sizes, apart, ended={5: (86,)}).stands_for_all(), "one is too little"
    assert not seen(sizes, apart, ended={5: (60, 75)}).stands_for_all(), "not the last ones"
    assert seen(sizes, apart, begun={5: (60, 75)}).stands_for_all(), "all but the last"
    assert not seen(sizes, apart, begun={5: (75,)}).stands_for_all(), "begins with another"
    assert not seen([10] * 40, dict.fromkeys((2, 15, 22, 33), USUAL), begun={5: (75,)}).stands_for_all(), (
        "a module that begins with another"
    )
