"""Where the magics of one container begin: all are looked for at once, and what holds none of them is never read again."""

from __future__ import annotations

import bisect

from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import zstd_content_size
from fatpatch.gpucode.frames import StreamBudget, stream_end
from fatpatch.model.kinds import Codec

_STEP = 1 << 12
_MOST = 1 << 18
"""Bytes read at a time at most: they stay in the cache of a processor while all are looked for."""
_LONG = 1 << 16
_LEAST = 32
"""Bytes that no image with its magic is shorter than."""
_FRAME_HEAD = 18


class Magics:
    """``needles`` lie at any byte, ``aligned`` at multiples of 8 only, and is found three times as fast."""

    def __init__(self, source: Source, needles: tuple[bytes, ...], aligned: bytes, budget: StreamBudget) -> None:
        self.source, self.needles, self.aligned, self.budget = source, needles, aligned, budget
        self.overlap = max(map(len, (*needles, aligned))) - 1
        self.starts: list[int] = []
        self.ends: list[int] = []

    def find(self, needle: bytes, at: int, end: int) -> int:
        """Offset of the first ``needle`` that lies wholly in [at, end), or -1; of one that is not among those looked for, too."""
        known = needle == self.aligned or needle in self.needles
        return self._find(needle, at, end) if known else self.source.find(needle, at, end)

    def first(self, at: int, end: int) -> int:
        """Offset of the first magic that lies wholly in [at, end), whichever it is, or -1."""
        return self._find(None, at, end)

    def _find(self, needle: bytes | None, at: int, end: int) -> int:
        step, end = _STEP, min(end, self.source.size)
        while at < end:
            index = bisect.bisect_right(self.starts, at)
            if index and at < self.ends[index - 1]:
                at = self.ends[index - 1]
                continue
            following = min(self.starts[index] if index < len(self.starts) else end, end)
            if step == _MOST and (data_at := self.source.next_data(at)) > at + self.overlap:
                at = min(data_at - self.overlap, following)
                continue
            data = self.source.peek(at, min(min(step, following - at) + self.overlap, end - at))
            eighths = _Eighths(data, at) if self.aligned else None
            frame = self._frame(eighths, at, end) if eighths is not None and step >= _LONG else None
            if frame is not None:
                data = data[: frame[0] - at + self.overlap]
            wanted, nearest = self._hits(data, eighths, needle)
            self._note(at, at + nearest if nearest >= 0 else at + len(data) - self.overlap)
            if wanted >= 0:
                return at + wanted
            if frame is not None:
                self._note(*frame)
                at, step = frame[1], _LONG
            elif at + len(data) >= end or not data:
                return -1
            else:
                at += len(data) - self.overlap
                step = min(step * 2, _MOST)
        return -1

    def _hits(self, data: bytes, eighths: _Eighths | None, needle: bytes | None) -> tuple[int, int]:
        """Where in ``data`` the first ``needle`` is, and the first of all; -1 for none."""
        found: dict[bytes, int] = {}
        if eighths is not None and 0 <= (place := eighths.find(self.aligned)) <= len(data) - len(self.aligned):
            found[self.aligned] = place
            if needle is None or needle == self.aligned:  # what lies behind it can wait
                data = data[: place + self.overlap]
        for each in self.needles:
            if data.rfind(each) >= 0:  # CPython's rfind is the faster one on a miss
                found[each] = data.find(each)
        nearest = min(found.values(), default=-1)
        return nearest if needle is None else found.get(needle, -1), nearest

    def _frame(self, eighths: _Eighths, at: int, end: int) -> tuple[int, int] | None:
        """[start, end) of the long zstd frames that begin in the bytes at ``at``, one behind the other: compressed, they hold no image."""
        place = eighths.find(n.ZSTD_MAGIC)
        start = stop = at + place
        while place >= 0:
            following = self._frame_end(stop + place if stop > start else start, end)
            if following is None:
                break
            stop = following
            place = _Eighths(self.source.peek(stop, _LEAST), stop).find(n.ZSTD_MAGIC)
        return (start, stop) if stop > start else None

    def _frame_end(self, start: int, end: int) -> int | None:
        """Behind the frame at ``start``; None where it is short, or where anything says that it is none."""
        head = self.source.peek(start, _FRAME_HEAD)
        size = zstd_content_size(head)
        if size is None or size < _LONG or head[4] & 0x18:  # reserved bits
            return None
        stop = stream_end(self.source, start, end, Codec.ZSTD, self.budget)
        return stop if stop is not None and _LONG <= stop - start <= 2 * size else None

    def _note(self, start: int, end: int) -> None:
        """No magic begins in [start, end)."""
        if start >= end:
            return
        index = bisect.bisect_right(self.starts, start)
        if index and self.ends[index - 1] >= start:
            self.ends[index - 1] = max(end, self.ends[index - 1])
        else:
            self.starts.insert(index, start)
            self.ends.insert(index, end)


class _Eighths:
    """Bytes from an offset on, in which things are sought at multiples of 8 alone: the second byte of each place is looked at first."""

    __slots__ = ("data", "lane", "start")

    def __init__(self, data: bytes, offset: int) -> None:
        self.data, self.start = data, -offset & 7
        self.lane = data[self.start + 1 :: 8]

    def find(self, needle: bytes) -> int:
        """The first place of ``needle`` in the bytes, or -1."""
        index, first, second = -1, needle[0], needle[1]
        while (index := self.lane.find(second, index + 1)) >= 0:
            at = self.start + index * 8
            if self.data[at] == first and self.data.startswith(needle, at):
                return at
        return -1
