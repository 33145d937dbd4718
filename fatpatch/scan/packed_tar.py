"""The members of a .tgz, found by a few ranges: a tar archive that is one deflate stream (RFC 1952, POSIX.1-2017 pax, ustar).

From the front each header says where the next one lies when unpacked; where that is in the stream is estimated, and looked for there.
What lies behind a large member is found from the end, whose unpacked place the trailer says: the section table at the end of a library
says how large that is, and so where its header lies. The members are known when both ways meet exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.deflate import DeflatePart, from_middle, from_start
from fatpatch.binfmt.elf.elf64 import HEADER, header_of
from fatpatch.binfmt.tar.read import BLOCK, PlainHeader, plain_header
from fatpatch.formats import numbers as n
from fatpatch.scan.elf_end import size_by_end, table_fits
from fatpatch.scan.packed_library import Budget, Look

_FIRST: Final = 16 << 10
_MARGIN: Final = 24 << 10

_GZIP_HEAD: Final = 10
_NAMED: Final = 8
"""The flag of a gzip header behind which a name stands."""

_GROWTH: Final = 32
_WARM: Final = 28 << 10
_BEHIND: Final = 2 << 10
_STEPS: Final = tuple(step << 10 for step in (16, 24, 40, 64, 96))
"""By so much more each look reaches to both sides."""

_NEAR: Final = 6 << 10
"""By so much an estimate is wrong of a member that another release has, too."""

_LARGE: Final = 12 << 20
"""From such a size on it is not estimated where a member ends in the stream."""

_TAILS: Final = (32 << 10, 64 << 10, 128 << 10, 256 << 10)
_MOST_TAIL: Final = 2 << 20
_ALIKE: Final = 1.4
"""By so much less or more the rest of an archive is packed, when there is no large member in it."""

_USUAL: Final = 0.37
"""Packed by unpacked bytes of a library of host code."""

_MOST: Final = 4096
_DIGITS: Final = lazy_pattern(r"[0-9]+")
_MAGIC: Final = b"ustar"
_MAGIC_AT: Final = 257


class TarMember(NamedTuple):
    """A member: where its header begins in the archive, and the parts of the stream that have its header and its end."""

    name: str
    size: int
    at: int
    begin: Look
    end: Look

    @property
    def data(self) -> int:
        """Where its first byte lies in the archive."""
        return self.at + BLOCK


class _Placed(NamedTuple):
    """A header at a place in the archive, in a part of the stream."""

    at: int
    header: PlainHeader
    look: Look

    @property
    def following(self) -> int:
        """Where the header behind the member lies."""
        return self.at + BLOCK + _padded(self.header.size)


class _Guess(NamedTuple):
    """About so many packed bytes, give or take ``slack``; 0 for very few."""

    packed: int
    slack: int


class Ratios:
    """What members are packed to, as it was seen: of members of the same size exactly so, of those of the same name or others about."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._named: dict[str, float] = {}
        self._seen: list[float] = []

    def add(self, header: PlainHeader, packed: int) -> None:
        """A member takes so many packed bytes."""
        self._known[header.size] = packed
        self._named[_without_version(header.name)] = packed / max(header.size, 1)
        self._seen.append(packed / max(header.size, 1))

    def guesses(self, size: int, name: str = "", rest: tuple[int, int] = (0, 0)) -> list[_Guess]:
        """How many packed bytes a member takes, the likeliest first. ``rest``: the (unpacked, packed) bytes of all from it on, if known."""
        if known := self._known.get(size):
            return [_Guess(known, 0)]
        if named := self._named.get(_without_version(name)):
            return [_Guess(int(size * named), _NEAR)]
        ratio, (plain, packed) = median(self._seen[-5:]) if self._seen else _USUAL, rest
        others = [packed / plain] if 0 < packed < plain else []
        if others and ratio / _ALIKE < others[0] < ratio * _ALIKE:
            share = min(2 * size / plain, 1.0)
            ratio = ratio * (1 - share) + others[0] * share
        return [_Guess(int(size * each), 2 * _NEAR) for each in (ratio, *others)]


class PackedTar:
    """Finds the members of a .tgz within a budget."""

    def __init__(self, source: Source, budget: Budget, ratios: Ratios) -> None:
        self.source, self.budget, self._ratios = source, budget, ratios

    def members(self) -> tuple[TarMember, ...] | None:
        """All members in their order; None where they are not found, or one is of a kind that is not understood."""
        if self.source.size < 4 * _FIRST:
            return None
        head = self.budget.read(self.source, 0, _FIRST)
        self._begin = _stream_at(head)
        trailer = self.budget.read(self.source, self.source.size - 8, 8)
        if not self._begin or len(trailer) < 8:
            return None
        self._end, self._total = self.source.size - 8, int.from_bytes(trailer[4:], "little")
        last = next((look for size in _TAILS if (look := self._last(size)) is not None), None)
        first = self._look(0, _FIRST)
        header = None if first is None else self._header(first, 0)
        if last is None or first is None or header is None:
            return None
        found = self._forward(_Placed(0, header, first), last)
        if found is None:
            return None
        rest = self._run(last, found[-1].following)
        if rest is None:
            rest = self._backward(found[-1].following, last)
        return None if rest is None else _together([*found, *rest], last)

    def before(self, look: Look, more: int) -> Look | None:
        """A part whose place is known, from before it on."""
        begin = look.at + look.part.start
        wider = self._look(begin - more, begin + len(look.part.packed))
        if wider is None or len(wider.part.data) <= len(look.part.data):
            return None
        return wider._replace(start=look.end - len(wider.part.data))

    def behind(self, look: Look, more: int) -> Look | None:
        """A part whose place is known, and what is behind it."""
        wider = self._look(look.at, look.at + look.part.start + len(look.part.packed) + more)
        if wider is None or wider.part.start != look.part.start or len(wider.part.data) <= len(look.part.data):
            return None
        return wider._replace(start=look.start)

    def _forward(self, found: _Placed, last: Look) -> list[_Placed] | None:
        """The members from the first on, up to one that is large, or to the last part."""
        members = [found]
        while len(members) < _MOST:
            at = members[-1].following
            if at >= (last.start or 0):
                if members[-1].look is not last and self._run(last, at) is not None:
                    self._learn(members[-1], last)
                return members
            inside = self._inside(members[-1].look, at)
            if inside is None:
                if members[-1].header.size >= _LARGE:
                    return members
                inside = self._behind(members[-1], last)
            if inside is None:
                return members  # perhaps it can be found from the end
            members.append(inside)
        return None

    def _behind(self, found: _Placed, last: Look) -> _Placed | None:
        """The header behind a member."""
        size, at = found.header.size, found.look.packed(found.at + BLOCK - (found.look.start or 0))
        rest = (last.start or 0) - found.at, last.at + last.part.start - at

        def accepted(look: Look, place: int) -> bool:
            return _ends(look.part, place, found)

        guesses = [guess._replace(packed=at + guess.packed) for guess in self._ratios.guesses(size, found.header.name, rest)]
        seen = self._seek(guesses, accepted)
        if seen is None:
            return None
        look, place = seen
        self._ratios.add(found.header, look.packed(place) - at)
        look = look._replace(start=found.following - place)
        return self._inside(look, found.following)

    def _learn(self, found: _Placed, behind: Look) -> None:
        """What a member is packed to, by the part with what is behind it."""
        begin, end = found.at + BLOCK - (found.look.start or 0), found.following - (behind.start or 0)
        self._ratios.add(found.header, behind.packed(end) - found.look.packed(begin))

    def _backward(self, wanted: int, last: Look) -> list[_Placed] | None:
        """The members from a place in the archive on, from the end backward."""
        members: list[_Placed] = []
        look: Look | None = last
        until: int | None = None
        while look is not None and len(members) < _MOST:
            first = look.start or 0
            run = self._first_run(look, wanted, until)
            begins = [each.at for each in (run or members)[:1]] or self._archive_ends(look)
            if begins[0] == wanted:
                return run + members
            part = look.part
            sizes = [(begin, size_by_end(part, begin - first)) for begin in begins]
            begin, size = next(((begin, size) for begin, size in sizes if size is not None), (0, 0))
            start = begin - _padded(size) - BLOCK
            if not size or start < wanted:
                look = self._wider(look, wanted)
                continue
            found = self._before(look, begin - first, size, start)
            if found is None:
                return None
            members = [found, *run, *members]
            if start == wanted:
                return members
            look, until = found.look, start
        return None

    def _archive_ends(self, last: Look) -> list[int]:
        """Where the zero blocks that end the archive may begin: what is before them may end with zeros itself."""
        assert last.start is not None
        end = _padded(last.start + len(last.part.data.rstrip(b"\0")))
        return [end, end + BLOCK]

    def _before(self, look: Look, inside: int, size: int, start: int) -> _Placed | None:
        """The header of a library that ends in a part."""

        def accepted(part: Look, place: int) -> bool:
            header = self._header(part, place)
            elf = header_of(part.part.data[place + BLOCK : place + BLOCK + HEADER.size])
            return header is not None and header.size == size and elf is not None and elf.sections_end == size

        end = look.packed(inside)
        guesses = [guess._replace(packed=end - guess.packed) for guess in self._ratios.guesses(size)]
        seen = self._seek(guesses, accepted)
        if seen is None:
            return None
        found, place = seen
        placed = self._inside(found._replace(start=start - place), start)
        if placed is not None:
            self._ratios.add(placed.header, end - found.packed(place + BLOCK))
        return placed

    def _first_run(self, look: Look, wanted: int, until: int | None) -> list[_Placed]:
        """The headers of a part from the first one on, not before ``wanted``, that leads to ``until``, or to the end of the archive."""
        assert look.start is not None
        for place in _places(look.part):
            at = look.start + place
            if at >= wanted and not at % BLOCK and (until is None or at < until):
                run = self._run(look, at, until)
                if run is not None:
                    return run
        return []

    def _run(self, look: Look, at: int, until: int | None = None) -> list[_Placed] | None:
        """The headers from a place of a part on, each where the one before says, to ``until`` or the end of the archive; None else."""
        found: list[_Placed] = []
        assert look.start is not None
        while len(found) < _MOST:
            if at == until:
                return found
            if until is None and at <= self._total - 2 * BLOCK and look.end == self._total:
                rest = look.part.data[at - look.start :]
                if not rest.strip(b"\0") and look.part.likely(at - look.start, len(look.part.data)):
                    return found
            inside = self._inside(look, at)
            if inside is None:
                return None
            found.append(inside)
            at = inside.following
        return None

    def _inside(self, look: Look, at: int) -> _Placed | None:
        """The header at a place in the archive, when it is in a part."""
        header = None if look.start is None else self._header(look, at - look.start)
        return None if header is None else _Placed(at, header, look)

    def _header(self, look: Look, place: int) -> PlainHeader | None:
        if place < 0 or not look.part.likely(place, place + BLOCK):
            return None
        return plain_header(look.part.data[place : place + BLOCK])

    def _seek(self, guesses: list[_Guess], accepted: Callable[[Look, int], bool]) -> tuple[Look, int] | None:
        """The part and the place of the header that is looked for, around places in the stream."""
        for guess in guesses:
            begin, end = guess.packed - _WARM, guess.packed + _BEHIND
            first = ((guess.slack, guess.slack),) if guess.slack else ((0, 0), (_WARM // 2, 0), (_NEAR, _NEAR))
            for before, behind in (*first, *((step, step) for step in _STEPS)):
                begin, end = begin - before, end + behind
                look = self._look(begin, end)
                for place in () if look is None else _places(look.part):
                    if look is not None and accepted(look, place):
                        return look, place
        return None

    def _look(self, start: int, end: int) -> Look | None:
        """A part of the stream, in whole blocks of the file."""
        piece = self.budget.block
        start, end = max(start // piece * piece, 0), min(-(-end // piece) * piece, self._end)
        data = self.budget.read(self.source, start, end - start)
        if not data:
            return None
        if start <= self._begin:
            packed = data[self._begin - start :]
            plain = from_start(packed, len(packed) * _GROWTH)
            return Look(DeflatePart(plain, plain, 0, False, packed), self._begin, 0)
        part = from_middle(data)
        return None if part is None or len(part.data) >= _GROWTH * len(data) else Look(part, start)

    def _last(self, size: int) -> Look | None:
        """The last bytes of the stream, by the trailer their place in the archive."""
        look = self._look(self._end - size, self._end)
        if look is None or not look.part.ended or len(look.part.data) > self._total:
            return None
        return look._replace(start=self._total - len(look.part.data))

    def _wider(self, look: Look, wanted: int) -> Look | None:
        """A part whose place is known, from further before: from a place in the archive on, as far as that can be estimated."""
        assert look.start is not None
        begin, end = look.at + look.part.start, look.at + look.part.start + len(look.part.packed)
        ratio = len(look.part.packed) / len(look.part.data)
        missing = (look.start - wanted) * ratio
        before = int(min(missing, 2 * (end - begin))) + _MARGIN
        if end - begin + before > _MOST_TAIL:
            return None
        return self.before(look, before)


def _stream_at(head: bytes) -> int:
    """Where the deflate stream of a gzip file begins; 0 where its header has fields other than a name, or is none."""
    if len(head) < _GZIP_HEAD or head[:3] != n.GZIP_MAGIC or head[3] & ~_NAMED:
        return 0
    return head.find(b"\0", _GZIP_HEAD) + 1 if head[3] else _GZIP_HEAD


def _places(part: DeflatePart) -> Iterator[int]:
    """Where headers may begin."""
    at = part.data.find(_MAGIC)
    while at >= 0:
        if at >= _MAGIC_AT:
            yield at - _MAGIC_AT
        at = part.data.find(_MAGIC, at + 1)


def _ends(part: DeflatePart, place: int, found: _Placed) -> bool:
    """Whether the member before a place in a part can be the one that was found: by its padding, and as far as it is an ELF library by
    the table of sections at its end.
    """
    size = found.header.size
    end = place - (-size % BLOCK)
    if plain_header(part.data[place : place + BLOCK]) is None or not part.likely(place, place + BLOCK):
        return False
    if end < 0 or part.data[end:place].strip(b"\0") or (end < place and not part.likely(end, place)):
        return False
    begin = found.at + BLOCK - (found.look.start or 0)
    elf = header_of(found.look.part.data[begin : begin + HEADER.size])
    return elf is None or elf.ident[:4] != n.ELF_MAGIC or table_fits(part, end, elf, size)


def _together(found: list[_Placed], last: Look) -> tuple[TarMember, ...]:
    looks = [each.look for each in found[1:]] + [last]
    return tuple(TarMember(each.header.name, each.header.size, each.at, each.look, look) for each, look in zip(found, looks, strict=True))


def _without_version(name: str) -> str:
    """The name of a file, by which it is known in other releases."""
    return _DIGITS.sub("", name.rpartition("/")[2])


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
