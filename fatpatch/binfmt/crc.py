"""The checksum of zip and gzip."""

from __future__ import annotations

import zlib
from collections.abc import Iterable


def crc_of(chunks: Iterable[bytes]) -> int:
    """CRC-32 of all bytes."""
    crc = 0
    for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
    return crc
