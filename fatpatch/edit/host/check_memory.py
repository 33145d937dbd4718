"""What a loader puts into memory, before and after a file was compacted: the same bytes at the same addresses, payloads apart."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence

from fatpatch.base.source import CHUNK, Source
from fatpatch.edit.references.parts import merged

Place = Callable[[int], int | None]
"""The file offset of an address; None where the file has no byte for it."""
Span = tuple[int, int]
_FAR = 1 << 64
_SHOWN = 4
_BLOCK = 256


def memory_problems(
    spans: Sequence[Span], old: tuple[Source, Place], new: tuple[Source, Place], apart: Iterable[Span], payloads: Iterable[Span]
) -> Iterator[str]:
    """Compare the addresses [start, end) of ``spans`` without those of ``payloads``.

    ``apart``: addresses that the edit changes: pointers to payloads, what relocates them, tables of headers.
    """
    shown = 0
    excused = merged(apart)
    for start, end in _outside(spans, merged(payloads)):
        for at in range(start, end, CHUNK):
            size = min(CHUNK, end - at)
            first, second = _bytes(old, at, size), _bytes(new, at, size)
            if first == second:
                continue
            if first is None or second is None or len(first) != len(second):
                yield f"the file has no bytes any more for {at:#x}"
                shown += 1
            else:
                for place in _differing(first, second, at):
                    if not _within(excused, place):
                        yield f"the byte at {place:#x} is another one"
                        shown += 1
                        break
            if shown >= _SHOWN:
                return


def _bytes(file: tuple[Source, Place], address: int, size: int) -> bytes | None:
    source, place = file
    offset = place(address)
    return None if offset is None else source.peek(offset, size)


def _differing(first: bytes, second: bytes, at: int) -> Iterator[int]:
    for start in range(0, len(first), _BLOCK):
        a, b = first[start : start + _BLOCK], second[start : start + _BLOCK]
        if a != b:
            yield from (at + start + index for index in range(len(a)) if a[index] != b[index])


def _within(spans: Sequence[Span], place: int) -> bool:
    index = bisect.bisect_right(spans, (place, _FAR)) - 1
    return index >= 0 and place < spans[index][1]


def _outside(spans: Sequence[Span], payloads: Sequence[Span]) -> Iterator[Span]:
    for start, end in spans:
        at = start
        for first, last in payloads[max(bisect.bisect_right(payloads, (start, _FAR)) - 1, 0) :]:
            if first >= end:
                break
            if last <= at:
                continue
            if first > at:
                yield at, first
            at = last
        if at < end:
            yield at, end
