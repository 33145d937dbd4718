"""Compressed streams: which codec one is of, and its bytes piece by piece."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, cast

from fatpatch.base.errors import FatpatchError, FormatError, UnsupportedError
from fatpatch.base.source import CHUNK, Source, SourceStream
from fatpatch.binfmt.quick_inflate import quick_inflater, settled
from fatpatch.formats import numbers as n
from fatpatch.model.kinds import Codec

_SKIPPABLE, _MAX_SKIPPED = 0x184D2A50, 64

STREAMS = (
    (n.GZIP_MAGIC, Codec.GZIP),
    (n.XZ_MAGIC, Codec.XZ),
    (n.BZIP2_MAGIC, Codec.BZIP2),
    (n.ZSTD_MAGIC, Codec.ZSTD),
    (n.LZ4_FRAME_MAGIC, Codec.LZ4),
    (n.LZMA_HEAD, Codec.LZMA),
)


def stream_codec(source: Source) -> str | None:
    """The codec of a compressed single file (.tgz, .tar.zst, .gz); None when it is none."""
    head = source.peek(_past_skippable(source), 14)
    for magic, name in STREAMS:
        if head.startswith(magic) and (name != Codec.BZIP2 or head[4:10] == b"1AY&SY") and (name != Codec.LZMA or _is_lzma(head)):
            return name
    return None


def _past_skippable(source: Source) -> int:
    """Where the first frame with data begins: pzstd and others write frames for other readers before it (RFC 8878, 3.1.2)."""
    at = 0
    for _ in range(_MAX_SKIPPED):
        head = source.peek(at, 8)
        if len(head) < 8 or int.from_bytes(head[:4], "little") & ~0xF != _SKIPPABLE:
            return at
        at += 8 + int.from_bytes(head[4:], "little")
    return 0


def _is_lzma(head: bytes) -> bool:
    """Whether a .lzma header is one: a usual dictionary size, a size that is unknown or sensible, and the first byte of data 0."""
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    return dictionary in {1 << power for power in range(16, 28)} and (size == (1 << 64) - 1 or size < 1 << 40) and head[13:14] == b"\0"


def pieces(codec: str, source: Source, first: int = CHUNK, notes: list[str] | None = None, crc32: int | None = None) -> Iterator[bytes]:
    """The pieces of a stream, none larger than 1 MiB; a codec's own error becomes a FormatError.

    ``crc32``: what they add up to as an archive says, so that deflate data may be left to a quicker inflater; the sum is not checked.
    """
    opener = _OPENERS.get(codec)
    if opener is None:
        raise UnsupportedError(f"packed by {codec}, which is not read", field="method", hint="unpack the archive with another tool")
    if skipped := _past_skippable(source):
        source = source.slice(skipped, source.size - skipped)
    try:
        told = [] if notes is None else notes
        summed = codec == Codec.GZIP or (codec == Codec.DEFLATE and crc32 is not None)
        quick = quick_inflater(source.size) if summed else None
        yield from opener(source, first, told) if quick is None else _quickly(quick, codec, source, first, crc32, told)
    except FatpatchError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | EOFError | ValueError | RuntimeError | zlib.error) and type(error).__name__ not in _ERRORS:
            raise
        raise FormatError(f"{codec} data is damaged: {error}", field="data") from error


def _pumped(make: Callable[[], Any], source: Source, first: int, magic: bytes, notes: list[str]) -> Iterator[bytes]:
    """Drive a decompressor object of the zlib, bz2 and lzma kind; further streams behind the first are read too.

    What follows a stream and is neither zeros nor another stream is told, and left: tools that unpack do the same.
    """
    engine, done = make(), 0
    for chunk in _growing(source, first):
        done += len(chunk)
        data = chunk
        while True:
            if engine.eof:  # zero padding may follow, or another stream
                data = data.lstrip(b"\0")
                if not data:
                    break
                if not magic.startswith(data[: len(magic)]) and not data.startswith(magic):
                    notes.append(f"{source.size - done + len(data):#x} bytes behind the end of the stream are no part of it")
                    return
                engine = make()
            piece = engine.decompress(data, CHUNK)
            if piece:
                yield piece
            if engine.eof:
                data = engine.unused_data or b""
            else:
                data = getattr(engine, "unconsumed_tail", b"")
                if not data and getattr(engine, "needs_input", not piece):
                    break
    if not engine.eof:
        raise FormatError("the stream ends before its end mark", field="data")


def _growing(source: Source, first: int) -> Iterable[bytes]:
    """The stored bytes, the first piece small so that a look at the head stays cheap."""
    at = 0
    step = min(max(first, 4096), CHUNK // 4)
    while chunk := source.peek(at, step):
        yield chunk
        at += len(chunk)
        step = CHUNK // 4


def _quickly(make: Callable[[int], Any], codec: str, source: Source, first: int, crc32: int | None, notes: list[str]) -> Iterator[bytes]:
    """A gzip or deflate stream by another inflater than zlib."""
    wbits, magic = (31, n.GZIP_MAGIC) if codec == Codec.GZIP else (-15, b"")

    def quick(told: list[str]) -> Iterator[bytes]:
        return _pumped(lambda: make(wbits), source, first, magic, told)

    def by_zlib(told: list[str]) -> Iterator[bytes]:
        return _OPENERS[codec](source, first, told)

    return settled(quick, by_zlib, None if codec == Codec.GZIP else crc32, notes)


def _deflate(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    return _pumped(lambda: zlib.decompressobj(-15), source, first, b"", notes)


def _gzip(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    return _pumped(lambda: zlib.decompressobj(31), source, first, n.GZIP_MAGIC, notes)


def _bzip2(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    import bz2

    return _pumped(bz2.BZ2Decompressor, source, first, n.BZIP2_MAGIC, notes)


def _xz(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    import lzma

    return _pumped(lambda: lzma.LZMADecompressor(memlimit=256 << 20), source, first, n.XZ_MAGIC, notes)


def _lzma(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    import lzma

    def make() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=256 << 20)

    return _pumped(make, source, first, n.LZMA_HEAD, notes)


def _lz4(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    import lz4.frame

    return _pumped(lz4.frame.LZ4FrameDecompressor, source, first, n.LZ4_FRAME_MAGIC, notes)


def _zstd(source: Source, first: int, notes: list[str]) -> Iterator[bytes]:
    import zstandard

    size = min(max(first, 4096), CHUNK)
    reading = cast(IO[bytes], SourceStream(source))
    with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(reading, read_across_frames=True) as stream:
        while piece := stream.read(size):
            yield piece
            size = CHUNK


_ERRORS = frozenset({"ZstdError", "LZMAError"})
_OPENERS: dict[str, Callable[[Source, int, list[str]], Iterator[bytes]]] = {
    Codec.DEFLATE: _deflate,
    Codec.GZIP: _gzip,
    Codec.BZIP2: _bzip2,
    Codec.XZ: _xz,
    Codec.ZSTD: _zstd,
    Codec.LZ4: _lz4,
    Codec.LZMA: _lzma,
}
