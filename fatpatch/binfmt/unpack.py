"""Bytes of members: stored ones as a window of their archive, packed ones streamed to a bounded temporary file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

from fatpatch.base.errors import FatpatchError, FormatError, InputError, LimitError, UnsupportedError
from fatpatch.base.leftovers import folder_prefix, remove_folders
from fatpatch.base.limits import Limits
from fatpatch.base.source import CHUNK, Source, SourceStream
from fatpatch.binfmt.spool_file import SpoolFile
from fatpatch.formats import numbers as n
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import Member

if TYPE_CHECKING:
    import tempfile

_SKIPPABLE, _MAX_SKIPPED = 0x184D2A50, 64
_ZIP_LZMA = 9  # version, length and bytes of the properties (APPNOTE 5.8.8)

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


_SMALL = 1 << 20


class Workspace:
    """The temporary files of one run, with a budget of unpacked bytes; ``close`` removes them all."""

    def __init__(self, limits: Limits, input_size: int) -> None:
        self.limits = limits
        self._allowed = min(limits.unpacked, limits.ratio_free + limits.ratio * input_size)
        self.members = 0
        self._unpacked = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._open: list[Source] = []
        self._spool: SpoolFile | None = None
        self._small: SpoolFile | None = None
        self._parts: list[Source] = []

    def spooled(self, source: Source) -> Source:
        """A copy of some bytes at the end of one temporary file that many share; ``cut_back`` forgets the last one."""
        if self._spool is None:
            try:
                self._spool = self._spool_file()
            except OSError as error:
                raise _no_room(error) from error
        start = self._spool.size
        try:
            for chunk in source.chunks():
                self._spend(len(chunk))
                self._spool.write(chunk)
        except OSError as error:
            self._spool.cut(start)
            raise _no_room(error) from error
        except FatpatchError:
            self._spool.cut(start)
            raise
        return self._spool.source(start)

    def cut_back(self, copy: Source) -> None:
        """Forget a copy, the last one that ``spooled`` made, and all behind it."""
        if self._spool is not None:
            self._spool.cut(copy.base)

    def open(self, source: Source, member: Member) -> Source:
        """The member's bytes; FormatError when they are damaged, LimitError when they are too many."""
        stored = source.slice(member.offset, member.stored_size)
        if member.method == Codec.STORED:
            return stored
        if member.method == Codec.SPARSE:
            return self._expanded(stored, member)

        if member.size <= _SMALL:
            return self._shared(b"".join(self._pieces_of(stored, member)))

        def fill(sink: IO[bytes]) -> None:
            for piece in self._pieces_of(stored, member):
                sink.write(piece)

        return self._filled(fill)

    def crc32(self, source: Source, member: Member) -> int:
        """The CRC-32 of the member's bytes, which are not kept; errors as for ``open``."""
        if member.method == Codec.SPARSE:
            content = self.open(source, member)
            crc = crc_of(content.chunks())
            self.release(content)
            return crc
        stored = source.slice(member.offset, member.stored_size)
        return crc_of(stored.chunks() if member.method == Codec.STORED else self._pieces_of(stored, member))

    def _pieces_of(self, stored: Source, member: Member) -> Iterator[bytes]:
        """The bytes of a packed member, as many as announced."""
        if member.size > self.limits.ratio_free + member.stored_size * self.limits.ratio:
            raise LimitError(f"{member.stored_size:#x} bytes unpack to {member.size:#x}: refused as a bomb", field="size")
        size = 0
        for piece in pieces(member.method, _stream(stored, member)):
            size += len(piece)
            if size > member.size:
                raise FormatError(f"unpacks to more than the {member.size:#x} bytes announced", field="size")
            self._spend(len(piece))
            yield piece
        if size != member.size:
            raise FormatError(f"unpacks to {size:#x} bytes, expected {member.size:#x}", field="size")

    def _expanded(self, stored: Source, member: Member) -> Source:
        """A sparse file in a temporary file with holes."""

        def fill(sink: IO[bytes]) -> None:
            at = 0
            for start, size in member.parts:
                sink.seek(start)
                for chunk in stored.chunks(at, size):
                    self._spend(len(chunk))
                    sink.write(chunk)
                at += size
            sink.truncate(member.size)

        return self._filled(fill)

    @property
    def allowed(self) -> int:
        """The bytes that this input may unpack to."""
        return self._allowed

    def _spend(self, size: int) -> None:
        self._unpacked += size
        if self._unpacked > self._allowed:
            raise LimitError(f"more than {self._allowed:#x} bytes unpacked from this input: refused as a bomb", field="size")

    def unpack(self, source: Source, codec: str, told: list[str] | None = None) -> Source:
        """A whole compressed stream in a temporary file; ``told`` takes what is odd behind its end."""

        def fill(sink: IO[bytes]) -> None:
            for piece in pieces(codec, source, told=told):
                self._spend(len(piece))
                sink.write(piece)

        return self._filled(fill)

    def _filled(self, fill: Callable[[IO[bytes]], None]) -> Source:
        """A temporary file with what ``fill`` writes; removed when that fails."""
        path = ""
        try:
            descriptor, path = self._temporary()
            with os.fdopen(descriptor, "wb") as sink:
                fill(sink)
        except OSError as error:
            _remove(path)
            raise _no_room(error) from error
        except FatpatchError:
            _remove(path)
            raise
        result = Source.open(path)
        self._open.append(result)
        return result

    def _shared(self, data: bytes) -> Source:
        """Some bytes at the end of the one temporary file that small members share."""
        try:
            self._small = self._small or self._spool_file()
            start = self._small.size
            self._small.write(data)
        except OSError as error:
            raise _no_room(error) from error
        self._parts.append(self._small.source(start))
        return self._parts[-1]

    def _spool_file(self) -> SpoolFile:
        descriptor, path = self._temporary()
        return SpoolFile(os.fdopen(descriptor, "w+b", buffering=0), path)

    def release(self, source: Source) -> None:
        """Remove the temporary file behind ``source``, if it is one of ours: nothing in it is needed any more.

        Of the file that small members share only the last one can go before the run ends.
        """
        if self._small is not None and self._parts and self._parts[-1] is source:
            self._small.cut(self._parts.pop().base)
            return
        for index, mine in enumerate(self._open):
            if mine is source:
                del self._open[index]
                source.close()
                _remove(source.path or "")
                return

    def head(self, source: Source, member: Member, size: int = 4096) -> bytes:
        """The first bytes of a member, without unpacking the rest; b"" when they cannot be read."""
        stored = source.slice(member.offset, member.stored_size)
        if member.method == Codec.STORED or (member.method == Codec.SPARSE and member.parts[:1] and not member.parts[0][0]):
            return stored.peek(0, size)
        try:
            return next(pieces(member.method, _stream(stored, member), first=size), b"")[:size]
        except FatpatchError:
            return b""

    def close(self) -> None:
        """Remove all temporary files."""
        for source in self._open:
            source.close()
        self._open.clear()
        for spool in filter(None, (self._spool, self._small)):
            spool.shut()
        self._spool = self._small = None
        self._parts.clear()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _temporary(self) -> tuple[int, str]:
        import tempfile

        return tempfile.mkstemp(dir=self._directory())

    def _directory(self) -> str:
        import tempfile

        if self._folder is None:
            remove_folders(tempfile.gettempdir())
            self._folder = tempfile.TemporaryDirectory(prefix=folder_prefix())
        return self._folder.name


def crc_of(chunks: Iterable[bytes]) -> int:
    """CRC-32 of all bytes."""
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return crc


def _no_room(error: OSError) -> InputError:
    return InputError(f"cannot unpack to a temporary file: {error.strerror}", hint="set TMPDIR to a folder with room")


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _stream(stored: Source, member: Member) -> Source:
    """The packed bytes of a member as its codec reads them. LZMA in a zip has no size in its header, but its version and length."""
    if member.method != Codec.LZMA:
        return stored
    head = stored.peek(0, _ZIP_LZMA)
    if len(head) < _ZIP_LZMA or head[2:4] != b"\5\0":
        raise FormatError("expected an LZMA header of 5 bytes", field="data")
    header = Source.of(head[4:] + member.size.to_bytes(8, "little"))
    return Source.joined([header, stored.slice(_ZIP_LZMA, stored.size - _ZIP_LZMA)])


def pieces(codec: str, source: Source, first: int = CHUNK, told: list[str] | None = None) -> Iterator[bytes]:
    """The pieces of a stream, none larger than 1 MiB; a codec's own error becomes a FormatError."""
    opener = _OPENERS.get(codec)
    if opener is None:
        raise UnsupportedError(f"packed by {codec}, which is not read", field="method", hint="unpack the archive with another tool")
    if skipped := _past_skippable(source):
        source = source.slice(skipped, source.size - skipped)
    try:
        yield from opener(source, first, [] if told is None else told)
    except FatpatchError:
        raise
    except Exception as error:
        if not isinstance(error, OSError | EOFError | ValueError | RuntimeError | zlib.error) and type(error).__name__ not in _ERRORS:
            raise
        raise FormatError(f"{codec} data is damaged: {error}", field="data") from error


def _pumped(make: Callable[[], Any], source: Source, first: int, magic: bytes, told: list[str]) -> Iterator[bytes]:
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
                    told.append(f"{source.size - done + len(data):#x} bytes behind the end of the stream are no part of it")
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


def _deflate(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
    return _pumped(lambda: zlib.decompressobj(-15), source, first, b"", told)


def _gzip(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
    return _pumped(lambda: zlib.decompressobj(31), source, first, n.GZIP_MAGIC, told)


def _bzip2(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
    import bz2

    return _pumped(bz2.BZ2Decompressor, source, first, n.BZIP2_MAGIC, told)


def _xz(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
    import lzma

    return _pumped(lambda: lzma.LZMADecompressor(memlimit=256 << 20), source, first, n.XZ_MAGIC, told)


def _lzma(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
    import lzma

    def make() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(format=lzma.FORMAT_ALONE, memlimit=256 << 20)

    return _pumped(make, source, first, n.LZMA_HEAD, told)


def _lz4(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
    import lz4.frame

    return _pumped(lz4.frame.LZ4FrameDecompressor, source, first, n.LZ4_FRAME_MAGIC, told)


def _zstd(source: Source, first: int, told: list[str]) -> Iterator[bytes]:
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
