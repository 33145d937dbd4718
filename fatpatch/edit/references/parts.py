"""Ranges of a file without the holes in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fatpatch.base.errors import FormatError
from fatpatch.edit.references.program import Part
from fatpatch.model.tree import Payload

_PADDING = 64
Hole = tuple[int, int]
"""File offsets [start, end)."""


def without_holes(parts: Iterable[Part], holes: Sequence[Hole], size: int, locator: str) -> Iterator[Part]:
    """The parts without what lies in a hole, and without what an earlier part has already.

    FormatError when they are larger than the file of ``size`` bytes, so that they overlap or lie outside.
    """
    ordered = sorted(parts)
    if sum(part.size for part in ordered) > size:
        raise FormatError("its code and data overlap or lie outside the file", locator=locator, field="section size")
    at = 0
    taken = sorted(holes)
    first = 0
    for part in ordered:
        start, end = max(part.offset, at), part.offset + part.size
        at = max(at, end)
        while first < len(taken) and taken[first][1] <= start:
            first += 1
        index = first
        while start < end:
            begin, finish = taken[index] if index < len(taken) else (end, end)
            if start < min(begin, end):
                yield part._replace(offset=start, size=min(begin, end) - start, address=part.address + start - part.offset)
            start = max(start, min(finish, end)) if begin < end else end
            index += 1


def followed_ends(payloads: Iterable[tuple[int, int]], sections: Iterable[tuple[int, int]]) -> Iterator[int]:
    """The ends of those payloads behind which something else of their section begins; all are [start, end) ranges.

    Where the section ends, or the next payload starts, at once or after padding, an address of the end can only be an end label.
    """
    spans = sorted(payloads)
    closed = {end for _, end in sections}
    for index, (_, end) in enumerate(spans):
        following = spans[index + 1][0] if index + 1 < len(spans) else None
        if end not in closed and not (following is not None and end <= following <= end + _PADDING):
            yield end


def entries_of(payloads: Iterable[Payload]) -> Iterator[int]:
    """File offsets at which entries of payloads begin, and the code in them."""
    for payload in payloads:
        for image in payload.images:
            yield from (place for place in (image.offset, image.data_offset) if payload.offset <= place < payload.offset + payload.size)


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The [start, end) ranges without empty ones, ascending, none over another."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(span for span in spans if span[0] < span[1]):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
    return result
