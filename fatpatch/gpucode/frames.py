"""Where a compressed stream ends, for containers that do not say it."""

from __future__ import annotations

import zlib

from fatpatch.base.source import Source
from fatpatch.formats.numbers import ZSTD_MAGIC
from fatpatch.model.kinds import Codec

_MAX_BLOCK = 128 << 10  # RFC 8878, 3.1.1.2.3
_SMALL_BLOCK = 24 << 10
_AHEAD = 64 << 10
_STEP = 1 << 20


class StreamBudget:
    """How much may be walked and inflated in one file: every magic in a hostile one may start a stream that leads nowhere."""

    def __init__(self, blocks: int = 4_000_000, inflated: int = 4 << 30) -> None:
        self.blocks, self.inflated = blocks, inflated


def stream_end(source: Source, start: int, limit: int, codec: str, budget: StreamBudget) -> int | None:
    """The offset behind the stream that starts at ``start``; None when it is damaged, does not end before ``limit``, or is too long.

    A zstd frame is walked by the headers of its blocks (RFC 8878, 3.1.1), nothing is unpacked; zlib has none, so it is.
    """
    return _zstd_end(source, start, limit, budget) if codec == Codec.ZSTD else _zlib_end(source, start, limit, budget)


def _zstd_end(source: Source, start: int, limit: int, budget: StreamBudget) -> int | None:
    head = source.peek(start, 5)
    if len(head) < 5 or head[:4] != ZSTD_MAGIC:
        return None
    descriptor = head[4]
    single = descriptor & 0x20
    content = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    at = start + 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3] + content
    data, data_at, size = b"", at, _MAX_BLOCK
    while budget.blocks > 0:
        budget.blocks -= 1
        inside = at - data_at
        if inside + 3 > len(data):  # small blocks come many at a time
            data, data_at, inside = source.peek(at, 3 if size > _SMALL_BLOCK else _AHEAD), at, 0
        if inside + 3 > len(data) or at + 3 > limit:
            return None
        header = data[inside] | data[inside + 1] << 8 | data[inside + 2] << 16
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3 or size > _MAX_BLOCK:
            return None
        at += 3 + (1 if kind == 1 else size)
        if header & 1:
            at += 4 if descriptor & 4 else 0
            return at if at <= limit else None
    return None


def _zlib_end(source: Source, start: int, limit: int, budget: StreamBudget) -> int | None:
    stream = zlib.decompressobj()
    at = start
    try:
        while at < limit and budget.inflated > 0:
            data = source.peek(at, min(_STEP, limit - at))
            if not data:
                return None
            at += len(data)
            while data and budget.inflated > 0:
                budget.inflated -= len(stream.decompress(data, _STEP))
                if stream.eof:
                    return at - len(stream.unused_data)
                data = stream.unconsumed_tail
    except zlib.error:
        return None
    return None
