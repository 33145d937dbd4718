"""Bounds-checked, read-only views of bytes: of a file (by pread) or of memory.

A ``Source`` never copies what it is not asked for, so hopping over the headers of a 4 GB file keeps memory flat. A slice
shares the file descriptor with its parent.
"""

from __future__ import annotations

import bisect
import errno
import io
import os
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import IO, Any

from fatpatch.base.errors import InputError, TruncatedError

CHUNK = 1 << 20
Place = tuple[int, int]
"""Which bytes, and where in them."""
_HAS_PREAD = hasattr(os, "pread")
_HAS_HOLES = sys.platform == "linux" and hasattr(os, "SEEK_DATA")
_NO_DATA = 1 << 63
_SMALL = 512
_WINDOW = 2048


class Backing:
    """What a source reads from: ``read`` gives fewer bytes at the end only. ``path`` is the file that holds them, if one does."""

    __slots__ = ("path",)
    path: str | None

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``."""
        raise NotImplementedError

    def next_data(self, offset: int) -> int:
        """The first offset from ``offset`` on that may hold anything but zeros of a hole."""
        return offset

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Make the [start, end) of all ranges ready to be read by path; nothing to do where they lie here."""

    def idle(self) -> None:
        """Let go of a descriptor that the next read opens again; of anything else nothing."""

    def close(self) -> None:
        """Let go of what is held open."""


class WindowedBacking(Backing):
    """A backing whose small reads go through one window, since headers come in clusters and a system call costs more than 2 KiB."""

    __slots__ = ("window",)

    def __init__(self) -> None:
        self.window = (0, b"")

    def read(self, offset: int, size: int) -> bytes:
        if size > _SMALL:
            return self._read(offset, size)
        start, data = self.window
        inside = offset - start
        if inside < 0 or inside + size > len(data):
            inside, data = 0, self._read(offset, _WINDOW)
            self.window = (offset, data)
        return data[inside : inside + size]

    def _read(self, offset: int, size: int) -> bytes:
        """As ``read``, from what lies below the window."""
        raise NotImplementedError


class _File(WindowedBacking):
    """One open file; ``pread`` where the system has it, else a locked seek and read."""

    __slots__ = ("_lock", "descriptor")
    path: str

    def __init__(self, path: str, *, idle: bool = False) -> None:
        self.path = path
        self.descriptor = -1
        super().__init__()
        self.descriptor = -1 if idle else _open(path)
        self._lock = threading.Lock()

    def _read(self, offset: int, size: int) -> bytes:
        if self.descriptor < 0:
            self.descriptor = _open(self.path)
        if _HAS_PREAD:
            return os.pread(self.descriptor, size, offset)
        with self._lock:
            os.lseek(self.descriptor, offset, os.SEEK_SET)
            return os.read(self.descriptor, size)

    def next_data(self, offset: int) -> int:
        if not _HAS_HOLES or self.descriptor < 0:
            return offset
        try:
            return os.lseek(self.descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            return _NO_DATA if error.errno == errno.ENXIO else offset

    def idle(self) -> None:
        self.close()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.close()


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))


class _Memory(Backing):
    """Bytes in memory."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.path = None
        self.data = data

    def read(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + size]

    def close(self) -> None:
        self.data = b""


class _Joined(Backing):
    """Sources one after the other, read as one: the content of a file that is not written yet."""

    __slots__ = ("_parts", "_starts")

    def __init__(self, parts: Sequence[Source]) -> None:
        self.path = None
        self._parts = [part for part in parts if part.size]
        self._starts = [0, *accumulate(part.size for part in self._parts)]

    def read(self, offset: int, size: int) -> bytes:
        pieces = []
        index = bisect.bisect_right(self._starts, offset) - 1
        while size > 0 and index < len(self._parts):
            part, inside = self._parts[index], offset - self._starts[index]
            piece = part.peek(inside, min(size, part.size - inside))
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
            index += 1
        return b"".join(pieces)

    def flat(self, offset: int, size: int) -> Iterator[Source]:
        for start, part in zip(self._starts, self._parts, strict=False):
            first, last = max(offset, start), min(offset + size, start + part.size)
            if first < last:
                yield from part.slice(first - start, last - first).flat()

    def close(self) -> None:
        """The parts belong to others."""


class _Stream(Backing):
    """An open file without a name."""

    __slots__ = ("_stream",)

    def __init__(self, stream: IO[bytes]) -> None:
        self.path = None
        self._stream = stream

    def read(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(size)

    def close(self) -> None:
        """Kept open: it could not be opened again."""


class _Zeros(Backing):
    """Zero bytes without end."""

    __slots__ = ()

    def __init__(self) -> None:
        self.path = None

    def read(self, offset: int, size: int) -> bytes:
        return bytes(size)

    def close(self) -> None:
        """Nothing is open."""


class Source:
    """A window of ``size`` bytes that starts at ``base`` of a file or of memory; offsets are relative to the window."""

    __slots__ = ("_backing", "base", "size")

    def __init__(self, backing: Backing, base: int, size: int) -> None:
        self._backing = backing
        self.base = base
        self.size = size

    @classmethod
    def open(cls, path: str) -> Source:
        """Open the regular file at ``path``; InputError says why it cannot be read."""
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                what = "not a regular file"
                if stat.S_ISDIR(status.st_mode):
                    what = "a folder" if os.access(path, os.R_OK | os.X_OK) else "a folder that may not be read"
                raise InputError(f"is {what}", locator=path, hint="name the files to read, one by one or by a shell pattern")
            backing = _File(path)
            return cls(backing, 0, os.lseek(backing.descriptor, 0, os.SEEK_END))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot open: {reason}", locator=path, hint="give the path of a file that you may read") from error

    @classmethod
    def known(cls, path: str, size: int) -> Source:
        """A source over a file that was read before, which the next read opens."""
        return cls(_File(path, idle=True), 0, size)

    @classmethod
    def of(cls, data: bytes) -> Source:
        """A source over bytes in memory."""
        return cls(_Memory(data), 0, len(data))

    @classmethod
    def of_file(cls, stream: IO[bytes]) -> Source:
        """A source over an open, unnamed file, which it keeps open."""
        return cls(_Stream(stream), 0, stream.seek(0, os.SEEK_END))

    @classmethod
    def joined(cls, parts: Sequence[Source]) -> Source:
        """A source over the parts, one after the other."""
        return cls(_Joined(parts), 0, sum(part.size for part in parts))

    @classmethod
    def zeros(cls, size: int) -> Source:
        """``size`` zero bytes that take no memory."""
        return cls(_Zeros(), 0, size)

    def flat(self) -> Iterator[Source]:
        """The parts that this source is joined of, down to those that are not joined."""
        if isinstance(self._backing, _Joined):
            yield from self._backing.flat(self.base, self.size)
        else:
            yield self

    def shares(self, other: Source) -> bool:
        """Whether both are windows of the same bytes; then their ``base`` can be compared."""
        return self._backing is other._backing

    def place(self, offset: int) -> Place:
        """What tells this byte from every other one that is open: members of an archive that were unpacked all begin at 0."""
        return id(self._backing), self.base + offset

    @property
    def empty(self) -> bool:
        """Whether all bytes are known to be zero without looking."""
        return isinstance(self._backing, _Zeros)

    @property
    def path(self) -> str | None:
        """The file that holds the bytes; None for memory."""
        return self._backing.path

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Make [start, end) of all ranges ready to be read from ``path``, by another process too: of a remote file they are fetched."""
        self._backing.prefetch((self.base + start, self.base + min(end, self.size)) for start, end in ranges)

    def slice(self, offset: int, size: int) -> Source:
        """The window [offset, offset + size); TruncatedError when it reaches outside."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise TruncatedError(f"{size:#x} bytes needed, {max(self.size - offset, 0):#x} left", offset=offset)
        return Source(self._backing, self.base + offset, size)

    def peek(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes at ``offset``: fewer at the end, none outside."""
        left = self.size - offset
        if size > left:
            size = left
        if offset < 0 or size <= 0:
            return b""
        try:
            data = self._backing.read(self.base + offset, size)
            while len(data) < size and (more := self._backing.read(self.base + offset + len(data), size - len(data))):
                data += more
        except OSError as error:
            raise InputError(f"cannot read: {error.strerror}", locator=self.path or "", offset=offset) from error
        return data

    def read(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes at ``offset``; TruncatedError when they are not there."""
        data = self.peek(offset, size)
        if len(data) != size:
            raise TruncatedError(f"{size:#x} bytes needed, {len(data):#x} left", offset=offset)
        return data

    def chunks(self, offset: int = 0, size: int | None = None) -> Iterator[bytes]:
        """The bytes [offset, offset + size) in pieces of at most 1 MiB."""
        end = self.size if size is None else min(self.size, offset + size)
        while offset < end:
            data = self.peek(offset, min(CHUNK, end - offset))
            if not data:
                return
            yield data
            offset += len(data)

    def next_data(self, offset: int) -> int:
        """The first offset from ``offset`` on that is in no hole of the file; the end when only holes follow."""
        return max(min(self._backing.next_data(self.base + offset) - self.base, self.size), offset)

    def find(self, needle: bytes, start: int, end: int) -> int:
        """Offset of the first ``needle`` that lies wholly in [start, end), or -1. Reads ahead in growing pieces."""
        step, overlap, end = 1 << 12, len(needle) - 1, min(end, self.size)
        while start < end:
            if step == CHUNK and any(needle) and (following := self.next_data(start)) > start + overlap:
                start = following - overlap
            data = self.peek(start, min(step + overlap, end - start))
            if data.rfind(needle) >= 0:  # CPython's rfind is the faster one on a miss
                return start + data.find(needle)
            if start + len(data) >= end or len(data) <= overlap:
                return -1
            start += len(data) - overlap
            step = min(step * 2, CHUNK)
        return -1

    def idle(self) -> None:
        """Let go of a descriptor until the next read: thousands of files must not hold thousands of them."""
        self._backing.idle()

    def close(self) -> None:
        """Close the file behind this window and all its slices; a later read opens it again, if it is still there."""
        self._backing.close()


class SourceStream(io.RawIOBase):
    """A source as a seekable file object, for libraries that want one."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self._source = source
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(offset + (0, self._at, self._source.size)[whence], 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._source.peek(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
