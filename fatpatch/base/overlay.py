"""A file as it will be: the old bytes, a few replaced ranges, and new bytes behind them. Nothing is copied until it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest

from fatpatch.base.errors import EditError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source

_HINT = "'fatpatch verify' says what is wrong with it"


class Write(NamedTuple):
    """Bytes that take the place of as many old ones at ``offset``."""

    offset: int
    data: Source

    @classmethod
    def of(cls, offset: int, data: bytes) -> Write:
        """A write of bytes at hand."""
        return cls(offset, Source.of(data))

    @property
    def end(self) -> int:
        return self.offset + self.data.size


class Overlay(NamedTuple):
    """``kept`` bytes of ``base`` with ``writes`` over them (ascending, not overlapping), then ``tail``."""

    base: Source
    kept: int
    writes: tuple[Write, ...]
    tail: tuple[Source, ...]

    @classmethod
    def of(cls, base: Source, writes: Iterable[Write], tail: Iterable[Source] = (), kept: int | None = None) -> Overlay:
        """An overlay whose writes are sorted and checked: they must not overlap, nor reach past what is kept."""
        ordered = tuple(sorted((write for write in writes if write.data.size), key=lambda write: write.offset))
        end = 0
        for write in ordered:
            if write.offset < end:
                raise EditError("structures of the file lie over each other, so it is not edited", offset=write.offset, hint=_HINT)
            end = write.end
        kept = base.size if kept is None else kept
        if end > kept:
            raise EditError("a structure of the file reaches past its end, so it is not edited", offset=end, hint=_HINT)
        return cls(base, kept, ordered, tuple(part for part in tail if part.size))

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.kept + sum(part.size for part in self.tail)

    @property
    def grown(self) -> bool:
        """Whether anything but the writes changes."""
        return bool(self.tail) or self.kept != self.base.size

    def parts(self) -> Iterator[Source]:
        """The whole content, old and new, in order."""
        at = 0
        for write in self.writes:
            if write.offset > at:
                yield self.base.slice(at, write.offset - at)
            yield write.data
            at = write.end
        if at < self.kept:
            yield self.base.slice(at, self.kept - at)
        yield from self.tail

    def source(self) -> Source:
        """The content as one source."""
        return Source.joined(tuple(self.parts()))


def same_bytes(first: Source, second: Source) -> bool:
    """Whether two sources hold the same bytes; not when one of them ends early because its file was cut."""
    return first.size == second.size and all(a == b for a, b in zip_longest(first.chunks(), second.chunks()))


def padding(at: int, alignment: int) -> Source:
    """The zero bytes that lead from ``at`` to the next multiple of ``alignment``."""
    return Source.zeros(-at % alignment)
