"""Bytes of members: stored ones as a window of their archive, packed ones streamed to a bounded temporary file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from typing import IO, TYPE_CHECKING

from fatpatch.base.errors import FatpatchError, FormatError, InputError, LimitError
from fatpatch.base.leftovers import folder_prefix, remove_folders
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.codecs import pieces
from fatpatch.binfmt.crc import crc_of
from fatpatch.binfmt.spool_file import SpoolFile
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import Member

if TYPE_CHECKING:
    import tempfile

_ZIP_LZMA = 9  # version, length and bytes of the properties (APPNOTE 5.8.8)
_SMALL = 1 << 20
"""Bytes up to which a packed member shares a temporary file with others."""
_HEAD = 4096


class Begun(NamedTuple):
    """The first bytes of a member, b"" where they cannot be read; of a packed one all its pieces, unpacked as they are asked for."""

    head: bytes
    pieces: Iterator[bytes] | None = None


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

    def begin(self, source: Source, member: Member) -> Begun:
        """A member of which more may be wanted, or not: nothing is unpacked twice."""
        if (head := self._stored_head(source, member, _HEAD)) is not None:
            return Begun(head)
        try:
            following = pieces(member.method, _stream(source.slice(member.offset, member.stored_size), member), _HEAD, crc32=member.crc32)
            first = next(following, b"")
            while 0 < len(first) < min(_HEAD, member.size) and (more := next(following, b"")):
                first += more
        except FatpatchError:
            return Begun(b"")
        return Begun(first[:_HEAD], chain((first,) if first else (), following))

    def open(self, source: Source, member: Member, begun: Begun | None = None) -> Source:
        """The member's bytes; FormatError when they are damaged, LimitError when they are too many. ``begun``: what ``begin`` gave."""
        stored = source.slice(member.offset, member.stored_size)
        if member.method == Codec.STORED:
            return stored
        if member.method == Codec.SPARSE:
            return self._expanded(stored, member)

        if member.size <= _SMALL:
            return self._shared(b"".join(self._pieces_of(stored, member, member.crc32, begun)))

        def fill(sink: IO[bytes]) -> None:
            for piece in self._pieces_of(stored, member, member.crc32, begun):
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

    def _pieces_of(self, stored: Source, member: Member, crc32: int | None = None, begun: Begun | None = None) -> Iterator[bytes]:
        """The bytes of a packed member, as many as announced; ``crc32`` as ``pieces`` takes it."""
        if member.size > self.limits.ratio_free + member.stored_size * self.limits.ratio:
            raise LimitError(f"{member.stored_size:#x} bytes unpack to {member.size:#x}: refused as a bomb", field="size")
        size = 0
        started = None if begun is None else begun.pieces
        for piece in pieces(member.method, _stream(stored, member), crc32=crc32) if started is None else started:
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

    def unpack(self, source: Source, codec: str, notes: list[str] | None = None) -> Source:
        """A whole compressed stream in a temporary file; ``notes`` takes what is odd behind its end."""

        def fill(sink: IO[bytes]) -> None:
            for piece in pieces(codec, source, notes=notes):
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

    def head(self, source: Source, member: Member, size: int = _HEAD) -> bytes:
        """The first bytes of a member, without unpacking the rest; b"" when they cannot be read."""
        if (head := self._stored_head(source, member, size)) is not None:
            return head
        try:
            return next(pieces(member.method, _stream(source.slice(member.offset, member.stored_size), member), first=size), b"")[:size]
        except FatpatchError:
            return b""

    def _stored_head(self, source: Source, member: Member, size: int) -> bytes | None:
        """The first bytes of a member that is not packed; None for one that is."""
        if member.method == Codec.STORED or (member.method == Codec.SPARSE and member.parts[:1] and not member.parts[0][0]):
            return source.slice(member.offset, member.stored_size).peek(0, size)
        return None

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
