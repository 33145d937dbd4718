"""A source that is sliced as bytes are: a large file whose tables are read without the rest."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.errors import LimitError
from fatpatch.base.source import Source


class SourceBytes:
    """The bytes of a source; each slice is read when it is asked for. LimitError for one of more than ``most`` bytes."""

    __slots__ = ("_most", "_source")

    def __init__(self, source: Source, most: int) -> None:
        self._source, self._most = source, most

    def __len__(self) -> int:
        return self._source.size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._source.size)
        if stop - start > self._most:
            raise LimitError(f"expected at most {self._most:#x} bytes, got {stop - start:#x}", offset=start, field="size")
        return self._source.peek(start, stop - start)

    def chunks(self) -> Iterator[bytes]:
        """All bytes in pieces of at most 1 MiB."""
        return self._source.chunks()
