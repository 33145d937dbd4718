"""What a loader puts into memory, before and after a file was compacted: the same bytes at the same addresses, payloads apart."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from fatpatch.source import CHUNK, Source

Place = Callable[[int], int | None]
"""The file offset of an address; None where the file has no byte for it."""
Span = tuple[int, int]
_WORD = 8
_SHOWN = 4


def memory_problems(
    spans: Sequence[Span], old: tuple[Source, Place], new: tuple[Source, Place], apart: Collection[int], payloads: Sequence[Span]
) -> Iterator[str]:
    """Compare the addresses [start, end) of ``spans`` without those of ``payloads``.

    ``apart``: addresses of 8-byte words that the edit changes: pointers to payloads, and what relocates them.
    """
    told = 0
    for start, end in _outside(spans, payloads):
        for at in range(start, end, CHUNK):
            size = min(CHUNK, end - at)
            first, second = _bytes(old, at, size), _bytes(new, at, size)
            if first == second:
                continue
            if first is None or second is None or len(first) != len(second):
                yield f"the file has no bytes any more for {at:#x}"
                told += 1
            else:
                for place in _differing(first, second, at):
                    if not any(word <= place < word + _WORD for word in apart):
                        yield f"the byte at {place:#x} is another one"
                        told += 1
                        break
            if told >= _SHOWN:
                return


def _bytes(file: tuple[Source, Place], address: int, size: int) -> bytes | None:
    source, place = file
    offset = place(address)
    return None if offset is None else source.peek(offset, size)


def _differing(first: bytes, second: bytes, at: int) -> Iterator[int]:
    return (at + index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)


def _outside(spans: Sequence[Span], payloads: Sequence[Span]) -> Iterator[Span]:
    for start, end in spans:
        at = start
        for first, last in sorted(payloads):
            if last <= at or first >= end:
                continue
            if first > at:
                yield at, first
            at = last
        if at < end:
            yield at, end
