"""A compressed stream that is read at offsets, without a file of all its bytes: forwards, or again from the last mark before.

Of gzip the state of the decompressor is kept at marks, a few hundred of some 40 KiB; other codecs begin again at the start.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

from fatpatch.base.errors import FatpatchError, FormatError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import CHUNK, Backing, Source
from fatpatch.binfmt.codecs import pieces
from fatpatch.formats import numbers as n
from fatpatch.model.kinds import Codec

UNKNOWN_SIZE = 1 << 60
_WINDOW = 4 << 20
_STEP = 1 << 16
_MARKS = 256
_FIRST_APART = 8 << 20


class _Mark(NamedTuple):
    """``engine`` as it was when the stored bytes up to ``stored`` had given the unpacked ones up to ``at``."""

    at: int
    stored: int
    engine: Any


class StreamReader(Backing):
    """What a compressed source unpacks to. ``end`` is its size once the end was met; ``watch`` sees every byte once, in order.

    Damage is a FormatError in ``problem``, and so is an error of ``watch``; what lies behind it reads as the end.
    """

    __slots__ = ("_apart", "_chunks", "_codec", "_furthest", "_marks", "_parts", "_source", "_start", "_stop", "_watch", "end", "problem")

    def __init__(self, source: Source, codec: str, watch: Callable[[bytes], object]) -> None:
        self.path = None
        self._source, self._codec, self._watch = source, codec, watch
        self.end: int | None = None
        self.problem: FatpatchError | None = None
        self._marks: list[_Mark] = []
        self._apart = _FIRST_APART
        self._furthest = 0
        self._chunks: Iterator[bytes] = iter(())
        self._parts: list[bytes] = []
        self._start = self._stop = 0
        self._rewind(0)

    def source(self) -> Source:
        """A source over it; its size is an upper bound."""
        return Source(self, 0, UNKNOWN_SIZE)

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``: fewer at the end, or where the stream is damaged."""
        ahead = self._stop + self._apart
        if offset < self._start or (offset > ahead and any(ahead < mark.at <= offset for mark in self._marks)):
            self._rewind(offset)
        while self._stop < offset + size and self._more(offset):
            pass
        return self._kept(offset, size)

    def _kept(self, offset: int, size: int) -> bytes:
        """The bytes of the pieces at hand; mostly one of the last holds them."""
        found: list[bytes] = []
        end, start = min(offset + size, self._stop), self._stop
        for piece in reversed(self._parts):
            start -= len(piece)
            if start < end:
                found.append(piece[max(offset - start, 0) : end - start])
            if start <= offset:
                break
        return b"".join(reversed(found))

    def to_end(self) -> None:
        """Read to the end, so that all of the stream has been seen."""
        while self._more(self._stop):
            pass

    def _more(self, wanted: int) -> bool:
        """Unpack one more piece; False at the end. What lies well before ``wanted`` is let go."""
        try:
            piece = next(self._chunks, None)
            if piece is not None and self._stop + len(piece) > self._furthest:
                self._watch(piece[max(self._furthest - self._stop, 0) :])
                self._furthest = self._stop + len(piece)
        except FatpatchError as error:
            self.problem = self.problem or error
            piece, self._chunks = None, iter(())
        if piece is None:
            self.end = self._stop
            return False
        self._parts.append(piece)
        self._stop += len(piece)
        while len(self._parts) > 1 and self._start + len(self._parts[0]) <= min(wanted, self._stop - _WINDOW):
            self._start += len(self._parts.pop(0))
        return True

    def _rewind(self, offset: int) -> None:
        mark = max((mark for mark in self._marks if mark.at <= offset), key=lambda mark: mark.at, default=None)
        self._parts.clear()
        self._start = self._stop = 0 if mark is None else mark.at
        if self._codec == Codec.GZIP:
            self._chunks = self._inflated(mark)
        else:
            self._chunks = pieces(self._codec, self._source)

    def _inflated(self, mark: _Mark | None) -> Iterator[bytes]:
        at, stored, engine = mark or (0, 0, zlib.decompressobj(31))
        engine = engine.copy()
        while data := self._source.peek(stored, _STEP):
            stored += len(data)
            while data:
                if engine.eof:
                    data = data.lstrip(b"\0")
                    if not data:
                        break
                    if not data.startswith(n.GZIP_MAGIC[: len(data)]):
                        return  # what follows is no part of the stream, as every tool that unpacks has it
                    engine = zlib.decompressobj(31)
                for piece in _engine_pieces(engine, data):
                    at += len(piece)
                    yield piece
                data = engine.unused_data
            self._note(at, stored, engine)
        if not engine.eof:
            raise FormatError("the stream ends before its end mark", field="data")

    def _note(self, at: int, stored: int, engine: Any) -> None:
        """Keep the state, so far from the last one that all stay few."""
        if engine.eof or (self._marks and at < self._marks[-1].at + self._apart) or at < self._apart:
            return
        self._marks.append(_Mark(at, stored, engine.copy()))
        if len(self._marks) > _MARKS:
            self._marks = self._marks[1::2]
            self._apart *= 2

    def close(self) -> None:
        """Let go of what is held in memory."""
        self._parts.clear()
        self._marks.clear()


def _engine_pieces(engine: Any, data: bytes) -> Iterator[bytes]:
    """All that some stored bytes unpack to, in pieces of at most 1 MiB."""
    try:
        while piece := engine.decompress(data, CHUNK):
            yield piece
            data = b"" if engine.eof else engine.unconsumed_tail
    except zlib.error as error:
        raise FormatError(f"gzip data is damaged: {error}", field="data") from error
