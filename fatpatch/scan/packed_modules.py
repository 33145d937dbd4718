"""Modules of a packed library, read where they must lie in its stream: between places that are known, an estimate, and a look around it.

A fatbin's header says its size, and the sizes of all modules are known: so it says which module was met, and its place is one more that is
known. What is read of a module is right when the sizes of its entries add up to its own.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.deflate import DeflatePart, from_middle, from_start
from fatpatch.gpucode.codec import codec_of
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.fatbin.read import CONTAINER, STRICT_MAGIC
from fatpatch.model.kinds import Codec
from fatpatch.scan.entry_headers import Flags, candidates, entry_of, header_at
from fatpatch.scan.packed_library import Anchor, Budget, Look, ModulePlaces, PackedLibrary

_WARM: Final = 40 << 10
"""Packed bytes before a place: up to the first block, and until what comes does not refer to before it."""

_JUMP_WARM: Final = 32 << 10
_LOOK: Final = 112 << 10
_STEP: Final = 64 << 10
_CONTIGUOUS: Final = 512 << 10
_NEAR: Final = 96 << 10
_MOST_LOOKS: Final = 9
_LOOKS_IN_ALL: Final = 100
_BENT: Final = ((1.1, 0.002), (2.0, 0.15), (1e9, 0.5))
"""By so much of the way between two anchors a place may lie beside the straight line, where the fatbins unpack to less than so many times
as much: little where their images are all compressed well, much where some are not compressed.
"""

_REST: Final = (0.08, 0.25, 0.5)
"""Packed by unpacked bytes of host code, its data and its symbols: least, usual, most."""

_COARSE: Final = 4
"""Halvings until the end of the fatbins is taken as known: other data with few repetitions lies behind them."""

_ENTRIES: Final = 8
"""Images that a large module has, about."""

_LEARNT: Final = 16
_GUESSED: Final = 6
"""By so much the estimate of a jump may be wrong: a sixth of its way, or a sixteenth after one that succeeded."""


_ALIKE: Final = 0xFFFF
"""The flags in which the images of a module are alike."""

_USUAL: Final = {Codec.ZSTD: 1.0, Codec.LZ4: 1.4}
"""Unpacked by packed bytes of an image that is compressed already."""

_KNOWN: Final = 5
"""Bytes of a fatbin's header, those of its size among them, that are not copied from what is not known."""

_FATBIN = lazy_pattern(
    rb"(?=[\x00\x50][\x00\xed][\x00\x55][\x00\xba][\x00\x01]\x00[\x00\x10]\x00(?!\x00{4}).{4}\x00{4}"
    rb"[\x00-\x02]\x00[\x00\x01][\x00\x01][\x00\x40-\xf8]\x00{3})",
    re.DOTALL,
)
"""The header of a fatbin and the beginning of its first entry, any byte of which but the size may be unknown."""


class PackedModules:
    """Reads modules of a library within a budget.

    ``read``: the headers of each module that was read, by its number; ``met``: kind and target of all headers that were seen.
    """

    def __init__(self, library: PackedLibrary, places: ModulePlaces, budget: Budget) -> None:
        self.source, self.modules, self.budget = library.source, places.modules, budget
        self.read = dict[int, list[Header]]()
        self.met = set[tuple[str, str]]()
        self._looks = list[Look]()
        self._looks_left = _LOOKS_IN_ALL
        self._seen_flags: Flags = {}
        self._looked, self._bent = list[int](), _BENT[0][1]
        self._numbers: dict[int, list[int]] = {}
        for index, (_, size) in enumerate(self.modules):
            self._numbers.setdefault(size, []).append(index)
        self._first, self._last = self.modules[0][0], sum(self.modules[-1])
        front, tail = places.ends
        self.anchors = [Anchor(0, 0), Anchor(library.size, self.source.size)]
        for look in places.ends:
            self._keep(look)
        least, usual, most = _REST
        if front.end <= self._first:
            begin, rest = len(front.part.packed), self._first - front.end
            self._add(Anchor(front.end, begin))
            self._add(Anchor(self._first, begin + int(usual * rest), int((most - least) / 2 * rest)))
        if (rest := (tail.start or 0) - self._last) >= 0:
            self._add(Anchor(self._last + rest, tail.at))
            self._add(Anchor(self._last, tail.at - int(usual * rest), int((most - least) / 2 * rest)))
        else:
            self._add(Anchor(self._last, tail.packed(len(tail.part.data) - tail.end + self._last)))

        ratio = self.ratio
        self._bent = next(bent for most, bent in _BENT if ratio < most)
        self._buckets = sorted({int(start / ratio // _STEP) for start, _ in self.modules})

    def _add(self, anchor: Anchor) -> None:
        """Keep an anchor; a better one of the same place takes the place of the other."""
        self.anchors = sorted([each for each in self.anchors if each.plain != anchor.plain or each.slack < anchor.slack] + [anchor])

    def estimate(self, place: int) -> Anchor:
        """Where a place of the library lies in the stream."""
        index = max(min(bisect.bisect_right(self.anchors, (place, 1 << 62, 0)), len(self.anchors) - 1), 1)
        low, high = self.anchors[index - 1], self.anchors[index]
        share = min(max((place - low.plain) / max(high.plain - low.plain, 1), 0.0), 1.0)
        span = max(high.packed - low.packed, 0)
        slack = low.slack * (1 - share) + high.slack * share + self._bent * span * min(share, 1 - share) * 2
        return Anchor(place, low.packed + int(span * share), int(slack))

    @property
    def ratio(self) -> float:
        """Unpacked by packed bytes of the fatbins, about."""
        packed = self.estimate(self._last).packed - self.estimate(self._first).packed
        return max((self._last - self._first) / max(packed, 1), 1.0)

    def bound(self) -> None:
        """Find where the fatbins begin and end in the stream, by halving: what lies around them is packed to less."""
        limit = (self.ratio / _REST[1]) ** 0.5
        self._halve(self._first, limit, 0, inside_is_above=True)
        self._halve(self._last, limit, _COARSE, inside_is_above=False)

    def _halve(self, place: int, limit: float, coarse: int, *, inside_is_above: bool) -> None:
        guess = self.estimate(place)
        least = max(_STEP, guess.slack >> coarse if coarse else 0)
        low, high = guess.packed - guess.slack, guess.packed + guess.slack
        while high - low > least:
            middle = (low + high) // 2
            look = self.look(middle - _STEP // 2, _STEP)
            if look is None:
                return
            inside = look.start is not None or len(look.part.data) < limit * len(look.part.packed)
            if inside == inside_is_above:
                high = middle
            else:
                low = middle
            self._add(Anchor(place, (low + high) // 2, (high - low) // 2 + (guess.slack >> _COARSE)))

    def look(self, at: int, size: int) -> Look | None:
        """A part of the stream; the modules that begin in it are read as far as it goes."""
        if (left := self._looks_left) == 0:
            return None
        self._looks_left = left - 1
        at = max(min(at, self.source.size - size), 0)
        if size >= _LOOK:
            self._looked.append(at)
        part = from_middle(data) if (data := self.budget.read(self.source, at, size)) else None
        if part is None:
            return None
        for place, header in _headers(part, self._seen_flags):
            if part.known(place, place + HEADER.size):
                entry = entry_of(header, "", 0)
                self.met.add((entry.kind, entry.target))
        look = Look(part, at, self._start(part))
        if look.start is not None:
            self._keep(look)
        return look

    def _start(self, part: DeflatePart) -> int | None:
        """Of which byte of the library the first one of a part is, by the sizes of the fatbins in it."""
        votes = Counter[int]()
        for found in _FATBIN.finditer(part.data):
            here = found.start()
            numbers = self._numbers.get(int.from_bytes(part.data[here + 8 : here + 16], "little") + CONTAINER.size, ())
            if numbers and sum(part.known(each, each + 1) for each in range(here, here + CONTAINER.size)) >= _KNOWN:
                votes.update({self.modules[index][0] - here: 1 for index in numbers})
        best = votes.most_common(2)
        return best[0][0] if best and (len(best) == 1 or best[0][1] > best[1][1]) else None

    def _keep(self, look: Look) -> None:
        assert look.start is not None
        self._looks.insert(0, look)  # the last one is the widest
        inside = [index for index, (start, _) in enumerate(self.modules) if look.start <= start < look.start + len(look.part.data)]
        for index in {inside[0], inside[-1]} if inside else ():
            start = self.modules[index][0]
            self._add(Anchor(start, look.packed(start - look.start)))
        for index in inside:
            if index not in self.read:
                self._walk(index, jump=False)

    def seek(self, index: int, *, jump: bool = True) -> bool:
        """Look for a module around where it must lie, and read it, with ``jump`` also in other parts; whether that succeeded."""
        start, size = self.modules[index]
        for turn in range(_MOST_LOOKS):
            if index in self.read:
                return True
            guess, ending = self.estimate(start), self.estimate(start + size)
            if self._seen(start) is not None:
                break
            length = max(ending.packed - guess.packed, 0)
            if jump and not turn and guess.slack < _STEP and length < _CONTIGUOUS:
                at, extent = guess.packed - _WARM - guess.slack, _WARM + length + 2 * guess.slack + (length >> 3) + (16 << 10)
            else:
                at, extent = next(self._around(guess), -1), _LOOK
                if at < 0:
                    return False
            if self.look(at, extent) is None:
                return False
        if not jump or (look := self._seen(start)) is None:
            return index in self.read
        if self._walk(index, jump=True):
            return True
        before = look.at - self._quiet(index)
        return 0 < before < _CONTIGUOUS and self._wider(look, before=before) is not None and self._walk(index, jump=True)

    def _quiet(self, index: int) -> int:
        """Where in the stream to begin, so that the headers of a module are known: one copies from another that is near."""
        while index and self.estimate(sum(self.modules[index])).packed - self.estimate(self.modules[index - 1][0]).packed < _STEP * 2:
            index -= 1
        return max(self.estimate(self.modules[index][0]).packed - _STEP, 0)

    def _wider(self, look: Look, *, before: int = 0, after: int = 0) -> Look | None:
        """A part whose place is known, read again from before it or to behind it."""
        assert look.start is not None
        at, end = max(look.at - before, 0), look.at + look.part.start + len(look.part.packed) + after
        data = self.budget.read(self.source, at, end - at)
        if not at and data:
            plain = from_start(data, len(data) << 5)
            part: DeflatePart | None = DeflatePart(plain, plain, 0, False, data)
        else:
            part = from_middle(data) if data else None
        if part is None or (not before and part.start != look.part.start):
            return None
        found = Look(part, at, look.end - len(part.data) if before else look.start)
        self._keep(found)
        return found

    def cost(self, index: int) -> float:
        """About how many bytes it takes to find and to read a module, more where it is likely not to be found."""
        start, size = self.modules[index]
        guess, ending = self.estimate(start), self.estimate(start + size)
        length = max(ending.packed - guess.packed, 0)
        entries = max(map(len, self.read.values()), default=_ENTRIES)
        reading = min(length, entries * (_LOOK + length // entries * 2 // _LEARNT)) + _LOOK
        if guess.slack < _STEP // 2:
            return reading
        ratio = self.ratio
        around = [int((start / ratio + sign * guess.slack) // _STEP) for sign in (-1, 1)]
        low, high = bisect.bisect_left(self._buckets, around[0]), bisect.bisect_right(self._buckets, around[1])
        chance = min(max(high - low, 1) * _STEP / (2 * guess.slack), 1.0)
        looks = min(2 * guess.slack // _STEP + 1, _MOST_LOOKS)
        found = 1 - (1 - chance) ** looks
        return 2 * _LOOK / chance / found + reading

    def _around(self, guess: Anchor) -> Iterator[int]:
        """Offsets to look at, the nearest first, that were not looked at."""
        step = max(_STEP, guess.slack // _MOST_LOOKS)
        for number in range(1, _MOST_LOOKS + 1):
            offset = number // 2 * step * (-1 if number % 2 else 1)
            at = guess.packed + offset - _WARM
            if abs(offset) <= guess.slack + _STEP and all(abs(at - each) >= _STEP // 2 for each in self._looked):
                yield at

    def _seen(self, place: int) -> Look | None:
        """A part that has a place of the library with the header that is there."""
        for look in self._looks:
            if look.start is not None and look.start <= place and place + CONTAINER.size + HEADER.size <= look.start + len(look.part.data):
                return look
        return None

    def _walk(self, index: int, *, jump: bool) -> bool:
        """Read the headers of a module whose beginning was seen; with ``jump`` also where they lie in other parts."""
        start, size = self.modules[index]
        place, end = start + CONTAINER.size, start + size
        look = self._seen(start)
        headers, jumped, ratio = list[Header](), list[Look](), 0.0
        while place < end:
            inside = None if look is None or look.start is None else place - look.start
            if look is None or inside is None:
                return False
            if inside + HEADER.size > len(look.part.data):
                moved = self._moved(look, headers[-1], place, ratio) if jump and headers else None
                if moved is None:
                    return False
                look, ratio = moved
                jumped.append(look)
                continue
            header = header_at(look.part, inside, self._seen_flags, sure=True)
            if header is None:
                return False
            headers.append(header)
            self._seen_flags[header.kind, header.arch] = header.flags
            place += header.header_size + header.payload_size
        if place != end:
            return False
        self.read[index] = headers
        self._foresee(look, headers[-1], end, ratio)
        for each in jumped:
            self._looks.append(each)
            self._add(Anchor(each.start or 0, each.at + each.part.start))
        return True

    def _foresee(self, look: Look | None, last: Header, end: int, ratio: float) -> None:
        """Where the last image of a module ends in the stream, as it is packed where it was seen."""
        step = last.header_size + last.payload_size
        if look is not None and look.start is not None and look.end < end:
            begin = look.packed(end - step - look.start)
            way = int(step / (ratio or _USUAL.get(codec_of(last.flags)) or _ratio(look, end - step - look.start, begin)))
            self._add(Anchor(end, begin + way, way // _GUESSED))

    def _moved(self, look: Look, last: Header, place: int, ratio: float) -> tuple[Look, float] | None:
        """The part with the header at a place that lies behind a part, and the ratio of the way there."""
        assert look.start is not None
        step = last.header_size + last.payload_size
        before = place - step - look.start
        begin = look.packed(before)
        guess = begin + int(step / (ratio or _USUAL.get(codec_of(last.flags)) or _ratio(look, before, begin)))
        reach = (guess - begin) // (_LEARNT if ratio else _GUESSED) + (12 << 10)
        if guess > self.source.size or reach > _CONTIGUOUS:
            return None
        missing = guess + reach - look.at - look.part.start - len(look.part.packed)
        if missing < _NEAR and (wider := self._wider(look, after=missing + (16 << 10))) is not None and place + HEADER.size <= wider.end:
            return wider, max(step / max(wider.packed(place - look.start) - begin, 1), 1.0)
        for warm, shift in ((_JUMP_WARM, 0), (_JUMP_WARM + _STEP, 0), (_JUMP_WARM, 1), (_JUMP_WARM, -1)):
            found = self.look(guess - warm - reach + 2 * shift * reach, warm + 2 * reach)
            if found is None:
                return None
            if found.start is not None and found.start <= place < found.start + len(found.part.data) - HEADER.size:
                return found, max(step / max(found.packed(place - found.start) - begin, 1), 1.0)
            at = _nearest(found, guess, last.flags, self._seen_flags)
            if at is not None and found.packed(at) > begin + (guess - begin) // 2:
                return found._replace(start=place - at), max(step / max(found.packed(at) - begin, 1), 1.0)
        return None


def _ratio(look: Look, place: int, packed: int) -> float:
    """Unpacked by packed bytes of a part from a place on."""
    return max((len(look.part.data) - place) / max(look.at + look.part.start + len(look.part.packed) - packed, 1), 1.0)


def _headers(part: DeflatePart, seen: Flags) -> Iterator[tuple[int, Header]]:
    for place in candidates(part):
        header = header_at(part, place, seen)
        if header is not None:
            yield place, header


def _nearest(look: Look, guess: int, flags: int, seen: Flags) -> int | None:
    """The place of the entry header with such flags that is nearest to a place in the stream, of those that do not begin a module."""
    middle = len(look.part.data) * (guess - look.at - look.part.start) / max(len(look.part.packed), 1)
    places = [
        place
        for place, header in _headers(look.part, seen)
        if (header.flags ^ flags) & _ALIKE == 0 and not look.part.data.startswith(STRICT_MAGIC, place - CONTAINER.size)
    ]
    return min(places, key=lambda place: abs(place - middle), default=None)
