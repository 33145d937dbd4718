"""What a search for references needs to know of a linked program, whatever its format."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source

_TWO_WORDS = 16
NEAR = 1 << 16


class Part(NamedTuple):
    """Bytes that are loaded: file offset, size, and address. ``code``: they hold instructions."""

    offset: int
    size: int
    address: int
    code: bool
    writable: bool = False


class PayloadReference(NamedTuple):
    """Something at the address ``place`` leads to the address ``target``; ``how`` says in words what it is."""

    place: int
    target: int
    how: str


class Export(NamedTuple):
    """A symbol that other files, dlsym or GetProcAddress find; ``own``: it is the end label of a section with payloads."""

    name: str
    address: int
    own: bool = False


class LinkedProgram(NamedTuple):
    """A linked file. ``parts``: all that is loaded, without payloads and without tables that hold no pointers.

    ``fixed``: it runs at the addresses that it was linked for, so that its bytes may hold addresses without a relocation.
    ``base``: what image-relative offsets count from, None where the format has none. ``relocated``: the pointers into ranges that
    relocations name, without those of wrappers. ``functions``: start addresses of functions, ascending; may be empty. ``gots``:
    addresses that may be _GLOBAL_OFFSET_TABLE_, from which position-independent code of the medium and large models counts.
    """

    source: Source
    locator: str
    machine: int
    parts: Sequence[Part]
    fixed: bool
    base: int | None
    relocated: Callable[[Ranges], Iterator[PayloadReference]]
    exports: Iterable[Export]
    functions: Callable[[], Sequence[int]]
    gots: Sequence[int] = ()


class Layout(NamedTuple):
    """What lies where in the file that holds the payloads: addresses.

    ``borders``: where something else begins, so that they are the end label of nothing. ``payloads``: [start, end) of all payloads.
    ``entries``: where entries of payloads begin, and the code in them.
    """

    borders: frozenset[int] = frozenset()
    payloads: tuple[tuple[int, int], ...] = ()
    entries: frozenset[int] = frozenset()


class Ranges:
    """Addresses of payloads that move or shrink, as [start, end) ranges that do not overlap."""

    def __init__(self, moved: Iterable[tuple[int, int]], shrunk: Iterable[tuple[int, int]], layout: Layout | None = None) -> None:
        rows = [(start, end, start, end) for start, end in moved]
        # A payload that stays keeps its header and the place of its first entry: only what lies behind that is somewhere else.
        rows += [(start + HEADER + 1, end, start, end) for start, end in shrunk if end - start > HEADER + 1]
        labels = frozenset(row[3] for row in rows)
        self._layout = layout = layout or Layout()
        self._set(rows, labels, labels - layout.borders)

    def _set(self, rows: Iterable[tuple[int, int, int, int]], labels: frozenset[int], ends: frozenset[int]) -> None:
        self._rows = sorted(rows)
        self._starts = [row[0] for row in self._rows]
        self._labels, self._ends = labels, ends
        self._joined: tuple[Ranges, ...] = ()
        self.low = min(self._starts, default=0)
        self.high = max((row[1] for row in self._rows), default=0) + 1

    def __bool__(self) -> bool:
        return bool(self._rows)

    def __contains__(self, address: int) -> bool:
        """Whether the address lies in a payload, or is the first one behind it and nothing else begins there."""
        index = bisect.bisect_right(self._starts, address) - 1
        return (index >= 0 and address < self._rows[index][1]) or address in self._ends

    def without(self, spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        """The parts of [start, end) ranges that lie in none of these."""
        for start, end in spans:
            at = start
            for low, high, _, _ in self._rows[max(bisect.bisect_right(self._starts, start) - 1, 0) :]:
                if low >= end:
                    break
                if low > at:
                    yield at, low
                at = max(at, high)
            if at < end:
                yield at, end

    def joined(self, others: Ranges) -> Ranges:
        """These and the others, which overlap none of them."""
        both = Ranges((), (), self._layout)
        both._set([*self._rows, *others._rows], self._labels | others._labels, self._ends | others._ends)
        both._joined = self, others
        return both

    def any_of(self, first: int, last: int) -> bool:
        """Whether one of the addresses first to last is in a payload or right behind one."""
        index = bisect.bisect_right(self._starts, last) - 1
        return (index >= 0 and first < self._rows[index][1]) or not self._ends.isdisjoint(range(first, last + 1))

    def doubtful(self, address: int) -> bool:
        """Whether a payload ends right before the address, and something else begins there."""
        return address in self._labels and address not in self._ends and address not in self

    def close_before(self, address: int, reach: int = _TWO_WORDS) -> bool:
        """Whether a payload starts within ``reach`` bytes behind the address: two words, where an array that is counted from one would."""
        index = bisect.bisect_right(self._starts, address)
        return index < len(self._rows) and self._rows[index][2] - address <= reach and self._rows[index][0] == self._rows[index][2]

    def near(self, address: int) -> bool:
        """Whether the address is less than 64 KiB before a payload, or behind one."""
        if self._joined:
            return self._joined[0].near(address)
        index = bisect.bisect_right(self._starts, address)
        if index < len(self._rows) and self._starts[index] - address < NEAR:
            return True
        return index > 0 and address - self._rows[index - 1][1] < NEAR

    def in_head(self, address: int) -> bool:
        """Whether the address lies in the first page of a payload or of an entry, where headers are."""
        at = bisect.bisect_right(self._heads, address) - 1
        return at >= 0 and address - self._heads[at] < 1 << PAGE_BITS and address in self

    def named(self, address: int) -> bool:
        """Whether the address is one that a table would name."""
        return address in self.names

    def label(self, address: int) -> bool:
        """Whether the address is one that a name would stand for: the start of a payload or of an entry, or the end."""
        return address in self.names or address in self._ends

    def end_at(self, address: int) -> bool:
        """Whether a payload ends right before the address, whatever begins there."""
        return address in self._labels

    @functools.cached_property
    def marks(self) -> frozenset[int]:
        """Where a payload starts, and where its first entry does."""
        return frozenset(place for row in self._rows for place in (row[2], row[2] + HEADER) if row[0] <= place < row[1])

    @functools.cached_property
    def sorted_marks(self) -> tuple[int, ...]:
        """The marks, ascending."""
        return tuple(sorted(self.marks))

    @functools.cached_property
    def rests(self) -> frozenset[int]:
        """What the names leave when divided by 4: compilers and linkers align them."""
        return frozenset(name & 3 for name in self.names)

    @functools.cached_property
    def name_pages(self) -> frozenset[int]:
        """The pages of the names, and those behind the marks."""
        behind = {(mark >> PAGE_BITS) + 1 for mark in self.marks}
        return frozenset(behind.union(name >> PAGE_BITS for name in self.names))

    @functools.cached_property
    def inner(self) -> frozenset[int]:
        """Where an entry begins, and the code in it, behind the marks."""
        return frozenset(place for place in self._layout.entries if place in self) - self.marks

    @functools.cached_property
    def names(self) -> frozenset[int]:
        """The addresses that a table would name: marks and inner ones."""
        return self.marks | self.inner

    @functools.cached_property
    def _heads(self) -> tuple[int, ...]:
        return tuple(sorted(self.names | {row[2] for row in self._rows}))

    @functools.cached_property
    def outermost(self) -> tuple[int, int]:
        """From the first payload of the file, edited or not, to the last."""
        spans = [*self._layout.payloads, (self.low, self.high)]
        return min(start for start, _ in spans), max(end for _, end in spans)

    @functools.cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """All addresses in the ranges and their ends, in few [start, end] spans that may hold others, too."""
        found = sorted((*((row[0], row[1]) for row in self._rows), *((end, end) for end in self._ends)))
        gap = _GAP
        while len(found) > _FEW:
            joined = found[:1]
            for start, end in found[1:]:
                if start - joined[-1][1] <= gap:
                    joined[-1] = (joined[-1][0], max(joined[-1][1], end))
                else:
                    joined.append((start, end))
            found, gap = joined, gap * 4
        return tuple(found)

    def covers(self, start: int, end: int) -> bool:
        """Whether the whole range [start, end) lies in payloads that move, or in the gaps of less than 64 bytes between them."""
        if self._joined:
            return any(each.covers(start, end) for each in self._joined)
        at = start
        for row in self._rows[max(bisect.bisect_right(self._starts, start) - 1, 0) :]:
            if row[0] > at + 64:
                break
            at = max(at, row[1])
            if at >= end:
                return True
        return at >= end > start


PAGE_BITS = 12
_GAP = 1 << 16
_FEW = 16
HEADER = 16
"""Bytes of a fatbin's header."""
