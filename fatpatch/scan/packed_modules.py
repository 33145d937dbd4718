"""Modules of a packed library, read where they must lie in its stream: between places that are known, an estimate, and a look around it.

A fatbin's header says its size, and the sizes of all modules are known: so it says which module was met, and its place is one more that is
known. What is read of a module is right when the sizes of its entries add up to its own.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from fatpatch.binfmt.deflate import DeflatePart, from_middle, from_start
from fatpatch.gpucode.codec import codec_of
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.fatbin.read import CONTAINER
from fatpatch.model.kinds import Codec
from fatpatch.scan.entry_headers import Flags, entry_of, header_at
from fatpatch.scan.packed_headers import ENTRY_END, FATBIN, USUAL, entry_headers, nearest, ratio_of
from fatpatch.scan.packed_library import Anchor, Budget, Look, ModulePlaces, PackedLibrary
from fatpatch.scan.stream_map import REST, StreamMap

_WARM: Final = 40 << 10
"""Packed bytes before a place: up to the first block, and until what comes does not refer to before it."""

_QUIET: Final = 80 << 10
_JUMP_WARM: Final = 28 << 10
_LOOK: Final = 112 << 10
_STEP: Final = 64 << 10
_CONTIGUOUS: Final = 384 << 10
_NEAR: Final = 48 << 10
_MOST_LOOKS: Final = 5
_LOOKS_IN_ALL: Final = 100
_FINE, _COARSE = 6, 4
"""Halvings until the end of the fatbins is taken as known: other data with few repetitions lies behind them."""

_ENTRIES: Final = 8
_EMPTY: Final = 600
"""Images that a large module has, and stored bytes of one without kernels, about."""

_LIKELY: Final = 3  # a place is so many times nearer to its estimate than its slack, mostly
_SEEN: Final = 64 << 10
"""Packed bytes of a look in which a header is known when it is there, about."""

_TRIED: Final = ((1, 0), (2, 0), (1, 1), (1, -1), (5, 0))
"""Where a jump looks: so many times the usual bytes before it, and by how many widths beside the estimate."""

_LEARNT: Final = 20
_BEFORE: Final = 12
_GUESSED: Final = 8
"""By so much the estimate of a jump may be wrong: a part of its way, less where the image before, or one of the same target, was seen."""

_UNEVEN: Final = 2.0  # fatbins that are packed to less have images of both kinds, compressed ones and others
_KNOWN: Final = 5
"""Bytes of a fatbin's header, those of its size among them, that are not copied from what is not known."""


class PackedModules:
    """Reads modules of a library within a budget.

    ``read``: the headers of each module that was read, by its number; ``begun`` and ``ended``: of others the first ones, up to the first
    jump, and the last ones; ``met``: kind and target of all headers that were seen.
    """

    def __init__(self, library: PackedLibrary, places: ModulePlaces, budget: Budget) -> None:
        self.source, self.modules, self.budget = library.source, places.modules, budget
        self.read = dict[int, list[Header]]()
        self.begun, self.ended = dict[int, list[Header]](), dict[int, list[Header]]()
        self.met = set[tuple[str, str]]()
        self._looks = list[Look]()
        self._looks_left = _LOOKS_IN_ALL
        self._seen_flags: Flags = {}
        self._looked = list[int]()
        self._followed = set[tuple[int, int]]()
        self._last = (0, 0)
        self._packs = dict[tuple[int, int], float]()
        self._numbers: dict[int, list[int]] = {}
        for index, (_, size) in enumerate(self.modules):
            self._numbers.setdefault(size, []).append(index)
        self.map = StreamMap(library, places)
        for look in places.ends:
            self._keep(look)
        self.map.settle()
        self.entries = _ENTRIES
        self._starts = [start for start, _ in self.modules]
        seen = (min(size, int(_SEEN * self.map.ratio) * _ENTRIES) for _, size in self.modules)
        self._headers_before = list(accumulate(seen, initial=0))

    @property
    def progress(self) -> tuple[int, int]:
        """How many modules were read, and how many places are known."""
        return len(self.read), self.map.known

    def bound(self) -> None:
        """Find where the fatbins begin and end in the stream, by halving: what lies around them is packed to less."""
        limit = (self.map.ratio / REST[1]) ** 0.5
        self._halve(self.map.first, limit, 0, inside_is_above=True)
        self._halve(self.map.last, limit, _COARSE, inside_is_above=False)

    def _halve(self, place: int, limit: float, coarse: int, *, inside_is_above: bool) -> None:
        guess = self.map.estimate(place)
        least = max(_STEP, guess.slack >> coarse if coarse else 0, self.source.size >> _FINE)
        low, high = guess.packed - guess.slack, guess.packed + guess.slack
        while high - low > least:
            middle = (low + high) // 2
            look = self.look(self._block(middle) - _STEP // 2, _STEP)
            if look is None:
                return
            if look.start is not None:
                way = int((place - look.start) / self.map.ratio)
                self.map.add(Anchor(place, look.at + way, abs(way) // _GUESSED + _STEP))
                return
            inside = len(look.part.data) < limit * len(look.part.packed)
            if inside == inside_is_above:
                high = middle
            else:
                low = middle
            self.map.add(Anchor(place, (low + high) // 2, (high - low) // 2 + (guess.slack >> _COARSE)))

    def look(self, at: int, size: int) -> Look | None:
        """A part of the stream; the modules that begin in it are read as far as it goes."""
        if (left := self._looks_left) == 0:
            return None
        self._looks_left = left - 1
        at, size = self._aligned(at, size)
        if size >= _LOOK:
            self._looked.append(at)
        part = from_middle(data) if (data := self.budget.read(self.source, at, size)) else None
        if part is None:
            return None
        for place, header in entry_headers(part, self._seen_flags):
            if part.known(place, place + HEADER.size):
                entry = entry_of(header, "", 0)
                self.met.add((entry.kind, entry.target))
        look = Look(part, at, self._start(part))
        if look.start is not None:
            self._keep(look)
        return look

    def _block(self, at: int) -> int:
        """The begin of the block with a place."""
        return (self.source.base + at) // self.budget.block * self.budget.block - self.source.base

    def _aligned(self, at: int, size: int) -> tuple[int, int]:
        """The whole blocks that are fetched for a part: what comes with it costs nothing."""
        base, end = self.source.base, self.source.base + max(min(at + size, self.source.size), 0)
        block = self.budget.block
        begin = (base + max(at, 0)) // block * block - base
        return max(begin, 0), min(-(-end // block) * block - base, self.source.size) - max(begin, 0)

    def _start(self, part: DeflatePart) -> int | None:
        """Of which byte of the library the first one of a part is, by the sizes of the fatbins in it."""
        votes = Counter[int]()
        for found in FATBIN.finditer(part.data):
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
            self.map.add(Anchor(start, look.packed(start - look.start)))
        for index in inside:
            if index not in self.read:
                self._walk(index, jump=False)

    def seek(self, index: int, *, jump: bool = True) -> bool:
        """Look for a module around where it must lie, and read it, with ``jump`` also in other parts; whether that succeeded."""
        start, size = self.modules[index]
        for turn in range(_MOST_LOOKS):
            if index in self.read:
                return True
            guess, ending = self.map.estimate(start), self.map.estimate(start + size)
            if self._seen(start) is not None:
                break
            length = max(ending.packed - guess.packed, 0)
            if jump and not turn and guess.slack < _STEP and length < _CONTIGUOUS:
                at, extent = guess.packed - _WARM - guess.slack, _WARM + length + 2 * guess.slack + (length >> 3) + (16 << 10)
            else:
                at, extent = next(self._around(guess), -1), _LOOK
                if at < 0:
                    return False
                at = self._block(at)
            look = self.look(at, extent)
            if look is None:
                return False
            if jump and index not in self.read and (look.start is not None or self._follow(look)) and self._seen(start) is None:
                return False  # another module was met: what is best to do next may be another one, too
        if not jump or (look := self._seen(start)) is None:
            return index in self.read
        if self._walk(index, jump=True):
            return True
        before = look.at - min(self._quiet(index), look.packed(start - (look.start or 0)) - _QUIET)
        return 0 < before < _CONTIGUOUS and self._wider(look, before=before) is not None and self._walk(index, jump=True)

    def _quiet(self, index: int) -> int:
        """Where in the stream to begin, so that the headers of a module are known: one copies from another that is near."""
        while index:
            begin, end = self.modules[index - 1][0], sum(self.modules[index])
            if self.map.estimate(end).packed - self.map.estimate(begin).packed >= _STEP * 2:
                break
            index -= 1
        return max(self.map.estimate(self.modules[index][0]).packed - _STEP, 0)

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
        """About how many bytes it takes to find and to read a module."""
        start, size = self.modules[index]
        guess = self.map.estimate(start)
        reading = self._reading(size)
        if guess.slack < _STEP // 2:
            return reading + _STEP
        reach = guess.slack * self.map.ratio / _LIKELY
        low = max(bisect.bisect_right(self._starts, start - reach) - 1, 0)
        high = max(bisect.bisect_left(self._starts, start + reach), low + 1)
        held = self._headers_before[high] - self._headers_before[low]
        chance = min(max(held / max(self._starts[high - 1] + self.modules[high - 1][1] - self._starts[low], 1), 0.02), 1.0)
        return _LOOK / chance + reading * 1.5

    def may_have_kernels(self, index: int) -> bool:
        """Whether a module that was not read is large enough for kernels, about."""
        return index not in self.read and self.modules[index][1] > _EMPTY * self.entries

    def _reading(self, size: int) -> float:
        """About how many bytes it takes to read the headers of a module of a size."""
        packed, entries = size / self.map.ratio, self.entries
        return min(packed, entries * (_JUMP_WARM + _STEP // 2 + packed / entries * 2 / _LEARNT))

    def _around(self, guess: Anchor) -> Iterator[int]:
        """Offsets to look at, the nearest first, that were not looked at."""
        step = max(_STEP, guess.slack >> _COARSE)
        for number in range(1, 2 * _MOST_LOOKS + 1):
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
        while place < end and look is not None and look.start is not None:
            inside = place - look.start
            if inside + HEADER.size > len(look.part.data):
                moved = self._moved(look, headers[-1], place, ratio) if jump and headers else None
                if moved is None:
                    break
                look, ratio = moved
                jumped.append(look)
                continue
            header = header_at(look.part, inside, self._seen_flags, sure=True)
            if header is None:
                break
            headers.append(header)
            self._seen_flags[header.kind, header.arch] = header.flags
            place += header.header_size + header.payload_size
        if place != end:
            if place < end and not jumped and len(headers) > len(self.begun.get(index, ())):
                self.begun[index] = headers
            return False
        self.read[index] = headers
        self.entries = max(self.entries if len(self.read) > 1 else 1, len(headers))
        self._foresee(look, headers[-1], end, ratio)
        for each in jumped:
            self._looks.append(each)
            self.map.add(Anchor(each.start or 0, each.at + each.part.start))
        return True

    def _foresee(self, look: Look | None, last: Header, end: int, ratio: float) -> None:
        """Where the last image of a module ends in the stream, as it is packed where it was seen."""
        step = last.header_size + last.payload_size
        if look is not None and look.start is not None and look.end < end:
            begin = look.packed(end - step - look.start)
            way = int(step / (ratio or USUAL.get(codec_of(last.flags)) or ratio_of(look, end - step - look.start, begin)))
            self.map.add(Anchor(end, begin + way, way // _GUESSED))

    def _follow(self, look: Look) -> bool:
        """Follow the entries of a part that is in the middle of a module to its end: the module there is known by its size.

        Whether it was met.
        """
        for at, header in entry_headers(look.part, self._seen_flags):
            if (header.payload_size, header.arch) in self._followed:
                continue
            chain, met = self._chain(look._replace(start=0), at, header)
            self._followed.update((each.payload_size, each.arch) for each in chain)
            if met or len(chain) > 1:
                return met
        return False

    def _chain(self, look: Look, place: int, header: Header) -> tuple[list[Header], bool]:
        """The headers from one on, and whether they led to the end of their module. Places are counted from the beginning of the part."""
        chain, ratio = [header], 0.0
        place += header.header_size + header.payload_size
        while True:
            inside = place - (look.start or 0)
            if inside + ENTRY_END > len(look.part.data):
                moved = self._moved(look, chain[-1], place, ratio, known=False)
                if moved is None:
                    return chain, False
                if moved[0].start is not None and moved[0].start >= self.map.first:
                    self._ends(moved[0], chain)
                    return chain, True
                look, ratio = moved
                continue
            found = header_at(look.part, inside, self._seen_flags, sure=True)
            if found is None:
                return chain, False
            chain.append(found)
            place += found.header_size + found.payload_size

    def _ends(self, look: Look, chain: list[Header]) -> None:
        """Keep the last headers of a module, that which ends in a part."""
        assert look.start is not None
        index = bisect.bisect_left(self._starts, look.start) - 1
        if index >= 0 and sum(self.modules[index]) < look.end and len(chain) > len(self.ended.get(index, ())):
            self.ended[index] = chain

    def _moved(self, look: Look, last: Header, place: int, ratio: float, *, known: bool = True) -> tuple[Look, float] | None:
        """The part with the header at a place that lies behind a part, and the ratio of the way there; of the part it is ``known``
        of which byte of the library its first one is.
        """
        assert look.start is not None
        step = last.header_size + last.payload_size
        before = place - step - look.start
        begin = look.packed(before)
        expected, learnt = self._expected(last, ratio) or (USUAL.get(codec_of(last.flags)) or ratio_of(look, before, begin), False)
        guess = begin + int(step / expected)
        sure = _LEARNT if learnt else _BEFORE if ratio and codec_of(last.flags) != Codec.NONE else _GUESSED
        reach = (guess - begin) // sure + (8 << 10)
        even = self.map.ratio < _UNEVEN or codec_of(last.flags) == Codec.NONE
        if known and even and (mapped := self.map.estimate(place)).slack + (8 << 10) < reach:
            guess, reach = mapped.packed, mapped.slack + (8 << 10)
        if guess > self.source.size or reach > (_CONTIGUOUS if known else _STEP):
            return None
        missing = guess + reach - look.at - look.part.start - len(look.part.packed)
        if known and missing < _NEAR:
            wider = self._wider(look, after=missing + (8 << 10))
            if wider is not None and place + HEADER.size <= wider.end:
                return wider, self._learn(last, step, wider.packed(place - look.start) - begin)
        for times, shift in _TRIED if known else _TRIED[:-1]:
            warm = times * _JUMP_WARM
            found = self.look(guess - warm - reach + 2 * shift * reach, warm + 2 * reach)
            if found is None:
                return None
            if found.start is not None and not known:
                return found, ratio
            if found.start is not None and found.start <= place < found.start + len(found.part.data) - HEADER.size:
                return found, self._learn(last, step, found.packed(place - found.start) - begin)
            at = nearest(found, guess, last.flags, self._seen_flags)
            if at is not None and found.packed(at) > begin + (guess - begin) // 2:
                return found._replace(start=place - at), self._learn(last, step, found.packed(at) - begin)
        return None

    def _expected(self, header: Header, ratio: float) -> tuple[float, bool] | None:
        """The ratio of an image by that of the one before it, as images of both kinds were packed before; whether both are known."""
        usual, before = self._packs.get((header.kind, header.arch)), self._packs.get(self._last)
        if usual and before and ratio:
            return max(usual * ratio / before, 1.0), True
        return (usual or ratio, False) if usual or ratio else None

    def _learn(self, header: Header, step: int, packed: int) -> float:
        """The ratio of an image, from which that of others of its kind is foreseen."""
        ratio = max(step / max(packed, 1), 1.0)
        if step > _JUMP_WARM:
            self._last = (header.kind, header.arch)
            self._packs[self._last] = ratio
        return ratio
