"""What was fetched of a remote file, in a sparse temporary file: each block is fetched once, and worker processes read it by path."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol

from fatpatch.base.errors import InputError
from fatpatch.base.limits import Fetched, Remote
from fatpatch.base.source import Backing

_AHEAD: Final = 4 << 20
_PART: Final = 2 << 20
_THREADS: Final = 4


class Fetcher(Protocol):
    """A file elsewhere."""

    requests: int
    fetched: int

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end)."""

    def close(self) -> None:
        """Let go of the connections."""


class Spool(Backing):
    """A remote file as a backing of sources; ``path`` is the temporary file, whole only where something was read or prefetched."""

    def __init__(self, fetcher: Fetcher, size: int, shown: str, options: Remote) -> None:
        self.size = size
        self._fetcher = fetcher
        self._shown = shown
        self._options = options
        self._block = options.block
        self._have = bytearray(-(-size // self._block))
        self._lock = threading.RLock()
        self._next, self._ahead = -1, self._block
        self.path: str
        self._descriptor = -1
        try:
            self._descriptor, self.path = tempfile.mkstemp(prefix="fatpatch-")
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            if self._descriptor >= 0:
                self._remove()
            raise _no_room(error) from error
        self._unname()

    @classmethod
    def whole(cls, pieces: Iterable[tuple[int, bytes]], fetcher: Fetcher, shown: str, options: Remote) -> Spool:
        """A spool of a file that came as (offset, bytes) from the start to the end, after a break from the start again."""
        spool = cls(fetcher, 0, shown, options)
        try:
            for offset, data in pieces:
                spool._write(offset, data)
                spool.size = offset + len(data)
            os.ftruncate(spool._descriptor, spool.size)
        except BaseException:
            spool._remove()
            raise
        spool._have = bytearray(b"\x01") * -(-spool.size // spool._block)
        return spool

    def put(self, offset: int, data: bytes) -> None:
        """Keep bytes that are at hand."""
        self._write(offset, data)
        last = len(self._have) if offset + len(data) >= self.size else (offset + len(data)) // self._block
        for block in range(-(-offset // self._block), last):
            self._have[block] = 1

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes; of a file that is read on and on, more and more is fetched at a time."""
        end = min(offset + size, self.size)
        if offset >= end:
            return b""
        with self._lock:
            self._ahead = min(self._ahead * 2, _AHEAD) if offset == self._next else self._block
            self._next = end
            if any(True for _ in self._missing(offset, end)):
                self._fetch([(offset, max(end, min(offset + self._ahead, self.size)))])
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, end - offset)

    def prefetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch the [start, end) of all ranges that are not here yet, several at a time."""
        with self._lock:
            self._fetch(ranges)

    def close(self) -> None:
        """Remove the temporary file and tell what was fetched."""
        if self._descriptor >= 0:
            self._fetcher.close()
            self._remove()
            if self._options.report is not None:
                self._options.report(Fetched(self._shown, self._fetcher.fetched, self.size, self._fetcher.requests))

    def _unname(self) -> None:
        """Where a system shows open files as paths, the file needs no name of its own, and cannot be left behind."""
        alias = f"/proc/{os.getpid()}/fd/{self._descriptor}"
        with suppress(OSError):
            if os.path.samefile(alias, self.path):
                os.unlink(self.path)
                self.path = alias

    def _remove(self) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        if not self.path.startswith("/proc/"):
            with suppress(OSError):
                os.unlink(self.path)

    def _missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs of blocks that [start, end) needs, as ranges."""
        block, last = start // self._block, -(-end // self._block)
        while (block := self._have.find(0, block, last)) >= 0:
            stop = self._have.find(1, block, last)
            stop = last if stop < 0 else stop
            yield block * self._block, min(stop * self._block, self.size)
            block = stop

    def _fetch(self, ranges: Iterable[tuple[int, int]]) -> None:
        parts = list(_parts(run for start, end in _merged(ranges, self._block) for run in self._missing(start, end)))
        if len(parts) <= 1:
            self._all(map(self._part, parts))
            return
        with ThreadPoolExecutor(min(_THREADS, len(parts))) as pool:
            self._all(pool.map(self._part, parts))

    def _part(self, part: tuple[int, int]) -> tuple[int, bytes]:
        return part[0], self._fetcher.read(*part)

    def _all(self, pieces: Iterable[tuple[int, bytes]]) -> None:
        for offset, data in pieces:
            self.put(offset, data)

    def _write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        try:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise _no_room(error) from error


def _merged(ranges: Iterable[tuple[int, int]], block: int) -> Iterator[tuple[int, int]]:
    """The ranges in order; what lies closer together than a block is one."""
    start, end = -1, -1
    for first, last in sorted(ranges):
        if start >= 0 and first <= end + block:
            end = max(end, last)
            continue
        if start >= 0:
            yield start, end
        start, end = first, last
    if start >= 0:
        yield start, end


def _parts(runs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for start, end in runs:
        yield from ((at, min(at + _PART, end)) for at in range(start, end, _PART))


def _no_room(error: OSError) -> InputError:
    return InputError(f"cannot keep what was fetched: {error.strerror}", hint="set TMPDIR to a folder with room")
