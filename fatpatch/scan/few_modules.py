"""A few modules of a packed library, read with as few bytes as it takes to tell what the rest is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from fatpatch.scan.packed_library import Anchor
from fatpatch.scan.packed_modules import PackedModules
from fatpatch.scan.seen_modules import Seen

_FEW: Final = 6
_STRETCH: Final = 0.67
"""Modules that are read at least, and of all so many may follow each other unread."""

_LOOK: Final = 64 << 10
_STEP: Final = 32 << 10
_WARM: Final = 40 << 10
_NEAR: Final = 256 << 10
_LOOKS: Final = 9
_TRIES: Final = 30
_HOST: Final = 4.0
"""Unpacked by packed bytes of host code and its tables, about."""

_BESIDE, _BESIDE_STEP = 5, 72 << 10
_UNEVEN: Final = 0.3
"""By so much of its way a part of the fatbins may be packed to more or less than all of them."""


class FewModules(PackedModules):
    """Modules of which a few are read, next to each other where that can be: it is known where one ends."""

    def bound(self) -> None:
        """Find a module near the beginning of the fatbins: what lies before them is packed to less."""
        guess, limit = self.map.estimate(self.map.first), (self.map.ratio * _HOST) ** 0.5
        low, high = max(guess.packed - guess.slack, 1), guess.packed + guess.slack
        for _ in range(_LOOKS):
            middle = int((low * high) ** 0.5)
            look = self.look(middle, _LOOK)
            if look is None or high - low < _LOOK:
                return
            if look.start is not None:
                self._begin(look.start + len(look.part.data) // 2, middle + _LOOK // 2)
                return
            if len(look.part.data) < limit * len(look.part.packed):
                high = middle
            else:
                low = middle

    def _begin(self, place: int, packed: int) -> None:
        """Where the fatbins begin, by a place in them that is known."""
        ratio = (self.map.last - place) / max(self.map.estimate(self.map.last).packed - packed, 1)
        way = int((place - self.map.first) / max(ratio, 1.0))
        self.map.add(Anchor(self.map.first, packed - way, int(way * _UNEVEN)))

    def run(self) -> None:
        """Read modules until enough of them lie in no stretch that is too long."""
        failed = set[int]()
        for _ in range(_TRIES):
            index = self._cheapest(failed)
            if index is None:
                return
            if self.seek(index):
                failed.clear()
                self._again()
            else:
                failed.add(index)

    def cost(self, index: int) -> float:
        """About how many bytes it takes to read a module: less where a part that was read leads to it."""
        start, size = self.modules[index]
        guess, ending = self.map.estimate(start), self.map.estimate(start + size)
        length = max(ending.packed - guess.packed, 0)
        if guess.slack >= _STEP or length > _NEAR:
            return super().cost(index)
        seen = self._seen(start)
        if seen is None:
            return _WARM + length + 2 * guess.slack
        return max(length - max(seen.end - start, 0) * length / max(size, 1), 0)

    def _around(self, guess: Anchor) -> Iterator[int]:
        """Offsets to look at that were not looked at: some beside each other, since estimates are mostly better than they must be."""
        for number in range(_BESIDE):
            at = guess.packed - _WARM + (number + 1) // 2 * _BESIDE_STEP * (1 if number % 2 else -1)
            if 0 < at < self.source.size and all(abs(at - each) >= _STEP for each in self._looked):
                yield at
        yield from super()._around(guess)

    def _cheapest(self, failed: set[int]) -> int | None:
        """The module to read next: of those in a stretch that is too long, or of all where there is none; None when enough are read."""
        count = len(self.modules)
        full = list(Seen(self).full())
        longest = int(_STRETCH * count)
        long = next(((low, high) for low, high in pairwise([-1, *full, count]) if high - low - 1 > longest), None)
        if long is None and len(full) >= min(_FEW, count):
            return None
        inside = range(count)
        if long is not None and full:
            low, high = long
            inside = range(max(high - longest - 1, low + 1), min(low + longest + 2, high))
        costs = {index: self.cost(index) for index in inside if index not in self.read and index not in failed}
        best = min(costs, key=lambda index: (costs[index], index), default=None)
        return best if best is not None and costs[best] < 2 * self.budget.left else None

    def _again(self) -> None:
        """Read the modules of parts that were met before, with what is known by now."""
        for look in list(self._looks):
            for index, (start, _) in enumerate(self.modules):
                if look.start is not None and look.start <= start < look.end and index not in self.read:
                    self._walk(index, jump=False)

    def stand_for_all(self) -> bool:
        """Whether what was read is enough to say what the rest is."""
        count, seen = len(self.modules), Seen(self)
        if len(self.read) == count:
            return True
        full = seen.full()
        longest = max(high - low - 1 for low, high in pairwise([-1, *full, count]))
        return seen.agrees() and (2 * len(self.read) > count if len(full) < _FEW else longest <= _STRETCH * count)
