"""Where a place of a packed library lies in its stream: known at some places, on the straight line between them, give or take a slack."""

from __future__ import annotations

import bisect
from typing import Final

from fatpatch.scan.packed_library import Anchor, Look, ModulePlaces, PackedLibrary

_BENT: Final = ((1.1, 0.002), (2.0, 0.06), (1e9, 0.2))
"""By so much of the way between two anchors a place may lie beside the straight line, where the fatbins unpack to less than so many times
as much: little where their images are all compressed well, much where some are not compressed.
"""

REST: Final = (0.08, 0.25, 0.5)
"""Packed by unpacked bytes of host code, its data and its symbols: least, usual, most."""


class StreamMap:
    """``first`` and ``last``: where the fatbins of a library begin and end when unpacked."""

    def __init__(self, library: PackedLibrary, places: ModulePlaces) -> None:
        self.first, self.last = places.modules[0][0], sum(places.modules[-1])
        self._anchors = [Anchor(0, 0), Anchor(library.size, library.source.size)]
        self._bent = _BENT[0][1]
        front, tail = places.ends
        self._from_front(front)
        self._from_tail(tail)

    def _from_front(self, front: Look) -> None:
        least, usual, most = REST
        if front.end <= self.first:
            begin, rest = len(front.part.packed), self.first - front.end
            self.add(Anchor(front.end, begin))
            self.add(Anchor(self.first, begin + int(usual * rest), int((most - least) / 2 * rest)))

    def _from_tail(self, tail: Look) -> None:
        least, usual, most = REST
        if (rest := (tail.start or 0) - self.last) >= 0:
            self.add(Anchor(self.last + rest, tail.at))
            self.add(Anchor(self.last, tail.at - int(usual * rest), int((most - least) / 2 * rest)))
        else:
            self.add(Anchor(self.last, tail.packed(len(tail.part.data) - tail.end + self.last)))

    def settle(self) -> None:
        """Take the usual slack for fatbins that are packed as these are."""
        ratio = self.ratio
        self._bent = next(bent for most, bent in _BENT if ratio < most)

    def add(self, anchor: Anchor) -> None:
        """Keep an anchor; a better one of the same place takes the place of the other."""
        kept = [each for each in self._anchors if each.plain != anchor.plain or each.slack < anchor.slack]
        self._anchors = sorted([*kept, anchor])

    @property
    def known(self) -> int:
        """How many places are known."""
        return len(self._anchors)

    def estimate(self, place: int) -> Anchor:
        """Where a place of the library lies in the stream."""
        index = max(min(bisect.bisect_right(self._anchors, (place, 1 << 62, 0)), len(self._anchors) - 1), 1)
        low, high = self._anchors[index - 1], self._anchors[index]
        share = min(max((place - low.plain) / max(high.plain - low.plain, 1), 0.0), 1.0)
        span = max(high.packed - low.packed, 0)
        slack = low.slack * (1 - share) + high.slack * share + self._bent * span * min(share, 1 - share) * 2
        return Anchor(place, low.packed + int(span * share), int(slack))

    @property
    def ratio(self) -> float:
        """Unpacked by packed bytes of the fatbins, about."""
        packed = self.estimate(self.last).packed - self.estimate(self.first).packed
        return max((self.last - self.first) / max(packed, 1), 1.0)
