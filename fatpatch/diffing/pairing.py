"""Which holder of the new release is which of the old: by path, by its bytes, by the end of the path, by its kernels."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fatpatch.diffing.facts import Facts
from fatpatch.locator import without_numbers

_ALIKE = 0.5
_DEPTH = 4
_STEPS = re.compile(r"[/\\!]")
_Key = Callable[[Facts], str]


class Pair(NamedTuple):
    """Old and new of one holder; one of them is None when it is gone or new."""

    old: Facts | None
    new: Facts | None

    @property
    def facts(self) -> Facts:
        """Of the new release, or of the old where it is gone."""
        found = self.new or self.old
        assert found is not None
        return found

    @property
    def unchanged(self) -> bool:
        """Whether both have the same GPU code."""
        return self.old is not None and self.new is not None and self.old.digest == self.new.digest

    @property
    def renamed(self) -> bool:
        return self.old is not None and self.new is not None and self.old.path != self.new.path


def paired(olds: Sequence[Facts], news: Sequence[Facts]) -> list[Pair]:
    """Every holder once, in the order of the new release, then what is gone."""
    if len(olds) == len(news) == 1:
        return [Pair(olds[0], news[0])]
    left, right = list(olds), list(news)
    found: dict[int, Facts] = {}
    _match(left, right, found, lambda facts: facts.path)
    _match(left, right, found, lambda facts: facts.digest)
    for depth in range(_DEPTH, 0, -1):
        for spell in (str, without_numbers):
            _match(left, right, found, functools.partial(_end, depth, spell), unique_among=(olds, news))
    _match_alike(left, right, found, (olds, news))
    return [Pair(found.get(id(new)), new) for new in news] + [Pair(old, None) for old in left]


def _end(depth: int, spell: Callable[[str], str], facts: Facts) -> str:
    """The last steps of the path: folders are renamed as wholes."""
    return "/".join(map(spell, _STEPS.split(facts.path or facts.name)[-depth:]))


def _match(
    left: list[Facts],
    right: list[Facts],
    found: dict[int, Facts],
    key: _Key,
    unique_among: tuple[Sequence[Facts], Sequence[Facts]] | None = None,
) -> None:
    """Pair those whose key occurs once on each side, among all of ``unique_among`` where given.

    Of libx_cuda118 and libx_cuda121 the number is no version: where several differ by their numbers alone, none is another's next.
    """
    olds, news = (_by(each, key) for each in unique_among or (left, right))
    for value, fitting in news.items():
        before = olds.get(value, [])
        if len(fitting) == len(before) == 1 and _holds(right, fitting[0]) and _holds(left, before[0]):
            _take(left, right, found, before[0], fitting[0])


def _match_alike(left: list[Facts], right: list[Facts], found: dict[int, Facts], every: tuple[Sequence[Facts], Sequence[Facts]]) -> None:
    """Pair what shares most kernels, but no two of a row of variants."""
    variants = [frozenset(name for name, each in _by(side, _plain).items() if len(each) > 1) for side in every]
    for new in list(right):
        others = [old for old in left if _plain(old) != _plain(new) or _plain(new) not in variants[0] | variants[1]]
        best = max(others, key=lambda old: _alike(old, new), default=None)
        if best is not None and _alike(best, new) >= _ALIKE:
            _take(left, right, found, best, new)


def _plain(facts: Facts) -> str:
    return _end(1, without_numbers, facts)


def _holds(each: Sequence[Facts], facts: Facts) -> bool:
    return any(other is facts for other in each)


def _by(each: Sequence[Facts], key: _Key) -> dict[str, list[Facts]]:
    groups: dict[str, list[Facts]] = {}
    for facts in each:
        groups.setdefault(key(facts), []).append(facts)
    return groups


def _take(left: list[Facts], right: list[Facts], found: dict[int, Facts], old: Facts, new: Facts) -> None:
    found[id(new)] = old
    left[:] = [facts for facts in left if facts is not old]
    right[:] = [facts for facts in right if facts is not new]


def _alike(old: Facts, new: Facts) -> float:
    """How much of their kernels two holders share, 0 to 1."""
    both = old.kernels.keys() | new.kernels.keys()
    return len(old.kernels.keys() & new.kernels.keys()) / len(both) if both else 0.0
