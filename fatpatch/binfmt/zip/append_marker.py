"""The mark that an append-only edit leaves before the new central directory: how long the file was before.

With it the edit can be undone by truncation even when the record beside the file is lost.
"""

from __future__ import annotations

import struct
import zlib

from fatpatch.base.errors import FatpatchError
from fatpatch.base.source import Source
from fatpatch.binfmt.zip import read as zip_reader

_MAGIC = b"fatpatch append\0"
_MARK = struct.Struct("<16sQII")
_SAMPLE = 1 << 16


def trailer(source: Source) -> Source:
    """The mark for an edit that appends to ``source``."""
    body = _MARK.pack(_MAGIC, source.size, _sample(source, source.size), 0)[:-4]
    return Source.of(body + struct.pack("<I", zlib.crc32(body)))


def size_before(source: Source) -> int | None:
    """The size before the last append-only edit; None when the file carries no whole mark, or its old end has changed."""
    directory = zip_reader.find_directory(source)
    if directory is None or directory.offset < _MARK.size:
        return None
    data = source.peek(directory.offset - _MARK.size, _MARK.size)
    if len(data) < _MARK.size:
        return None
    magic, size, sample, check = _MARK.unpack(data)
    if magic != _MAGIC or check != zlib.crc32(data[:-4]) or size >= source.size:
        return None
    try:
        return size if _sample(source, size) == sample else None
    except FatpatchError:
        return None


def _sample(source: Source, size: int) -> int:
    start = max(size - _SAMPLE, 0)
    return zlib.crc32(source.read(start, size - start))
