"""Which holder of the new release is which of the old: by path, by its bytes, by the end of the path, by its kernels."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from fatpatch.base.locator import without_numbers
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.verdicts.library_facts import LibraryFacts

_ALIKE = 0.5
_DEPTH = 4
_MOST_HOLDERS = 64
_STEPS = lazy_pattern(r"[/\\!]")
_Key = Callable[[LibraryFacts], str]


class ReleasePair(NamedTuple):
    """Old and new of one holder; one of them is None when it is gone or new."""

    old: LibraryFacts | None
    new: LibraryFacts | None

    @property
    def facts(self) -> LibraryFacts:
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


def paired(olds: Sequence[LibraryFacts], news: Sequence[LibraryFacts]) -> list[ReleasePair]:
    """Every holder once, in the order of the new release, then what is gone."""
    if len(olds) == len(news) == 1:
        return [ReleasePair(olds[0], news[0])]
    pairing = _Pairing(olds, news)
    pairing.match(lambda facts: facts.path)
    pairing.match(lambda facts: facts.digest)
    for depth in range(_DEPTH, 0, -1):
        for spell in (str, without_numbers):
            pairing.match(functools.partial(_end, depth, spell), among_all=True)
    pairing.match_alike()
    gone = [old for old in olds if id(old) in pairing.left]
    return [ReleasePair(pairing.found.get(id(new)), new) for new in news] + [ReleasePair(old, None) for old in gone]


class _Pairing:
    """What is paired so far: ``found`` by the id of the new one; ``left`` and ``right`` are those without a partner, in order."""

    def __init__(self, olds: Sequence[LibraryFacts], news: Sequence[LibraryFacts]) -> None:
        self.every = olds, news
        self.left = {id(old): old for old in olds}
        self.right = {id(new): new for new in news}
        self.found: dict[int, LibraryFacts] = {}

    def match(self, key: _Key, *, among_all: bool = False) -> None:
        """Pair those whose key occurs once on each side: of those without a partner, or among all.

        Of libx_cuda118 and libx_cuda121 the number is not a version: where several differ by their numbers alone, none is another's next.
        """
        olds, news = (_by(each, key) for each in (self.every if among_all else (self.left.values(), self.right.values())))
        for value, fitting in news.items():
            before = olds.get(value, [])
            if len(fitting) == len(before) == 1 and id(fitting[0]) in self.right and id(before[0]) in self.left:
                self._take(before[0], fitting[0])

    def match_alike(self) -> None:
        """Pair what shares most kernels, but no two of a row of variants."""
        variants = frozenset(name for side in self.every for name, each in _by(side, _plain).items() if len(each) > 1)
        by_kernel: dict[str, list[LibraryFacts]] = {}
        for old in self.left.values():
            for name in old.kernels:
                by_kernel.setdefault(name, []).append(old)
        for new in list(self.right.values()):
            names = new.kernels.keys() if _plain(new) not in variants else set[str]()
            shared = Counter(id(old) for name in names for old in by_kernel.get(name, ())[:_MOST_HOLDERS] if id(old) in self.left)
            alike = {key: count / len(self.left[key].kernels.keys() | new.kernels.keys()) for key, count in shared.items()}
            best = max(alike, key=alike.__getitem__, default=None)
            if best is not None and alike[best] >= _ALIKE:
                self._take(self.left[best], new)

    def _take(self, old: LibraryFacts, new: LibraryFacts) -> None:
        self.found[id(new)] = old
        del self.left[id(old)], self.right[id(new)]


def _by(each: Iterable[LibraryFacts], key: _Key) -> dict[str, list[LibraryFacts]]:
    groups: dict[str, list[LibraryFacts]] = {}
    for facts in each:
        groups.setdefault(key(facts), []).append(facts)
    return groups


def _plain(facts: LibraryFacts) -> str:
    return _end(1, without_numbers, facts)


def _end(depth: int, spell: Callable[[str], str], facts: LibraryFacts) -> str:
    """The last steps of the path: folders are renamed as wholes."""
    return "/".join(map(spell, _STEPS.split(facts.path or facts.name)[-depth:]))
