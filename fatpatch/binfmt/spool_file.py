"""One temporary file for the bytes of many members: written behind what is kept, and cut back when they are not needed."""

from __future__ import annotations

import os
from typing import IO

from fatpatch.base.source import Source, WindowedBacking


class SpoolFile(WindowedBacking):
    """A file that grows; its bytes are read at any time. It is removed by its owner."""

    __slots__ = ("_stream", "size")

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.path = path
        self._stream = stream
        super().__init__()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._stream.seek(self.size)
        rest = memoryview(data)
        while rest:  # one call may write less, where the disk is nearly full
            rest = rest[self._stream.write(rest) :]
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Forget what was written from ``size`` on."""
        self.size = size
        self.window = (0, b"")
        self._stream.truncate(size)

    def source(self, start: int) -> Source:
        """A source over what was written from ``start`` on."""
        return Source(self, start, self.size - start)

    def _read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._stream.fileno(), size, offset)
        self._stream.seek(offset)
        return self._stream.read(size)

    def close(self) -> None:
        """Its owner closes it: other members are in it."""

    def shut(self) -> None:
        """Close the file."""
        self._stream.close()
