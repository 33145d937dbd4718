"""New bytes that may be many, kept in an unnamed temporary file until they are written to their place."""

from __future__ import annotations

import threading
from tempfile import TemporaryFile
from typing import IO

from fatpatch.base.errors import InputError
from fatpatch.base.source import Source

_SMALL = 1 << 16


class Scratch:
    """Takes bytes, from any thread, and gives a source for them."""

    def __init__(self) -> None:
        self._stream: IO[bytes] | None = None
        self._lock = threading.Lock()

    def keep(self, data: bytes) -> Source:
        """The bytes as a source; InputError when there is no room for them."""
        if len(data) <= _SMALL:
            return Source.of(data)
        try:
            with self._lock:
                if self._stream is None:
                    self._stream = TemporaryFile()  # noqa: SIM115 (lives as long as the sources over it)
                start = self._stream.seek(0, 2)
                self._stream.write(data)
                self._stream.flush()
        except OSError as error:
            raise InputError(f"cannot write a temporary file: {error.strerror}", hint="set TMPDIR to a folder with room") from error
        return Source.of_file(self._stream).slice(start, len(data))
