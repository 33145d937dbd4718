"""Headers of fatbins and of their entries in a part of a stream, before it is known where in the library the part lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.deflate import DeflatePart
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.fatbin.read import CONTAINER, STRICT_MAGIC
from fatpatch.model.kinds import Codec
from fatpatch.scan.entry_headers import Flags, candidates, header_at
from fatpatch.scan.packed_library import Look

_ALIKE: Final = 0xFFFF
"""The flags in which the images of a module are alike."""

USUAL: Final = {Codec.ZSTD: 1.0, Codec.LZ4: 1.4}
"""Unpacked by packed bytes of an image that is compressed already."""

ENTRY_END: Final = CONTAINER.size + HEADER.size

FATBIN = lazy_pattern(
    rb"(?=[\x00\x50][\x00\xed][\x00\x55][\x00\xba][\x00\x01]\x00[\x00\x10]\x00(?!\x00{4}).{4}\x00{4}"
    rb"[\x00-\x02]\x00[\x00\x01][\x00\x01][\x00\x40-\xf8]\x00{3})",
    re.DOTALL,
)
"""The header of a fatbin and the beginning of its first entry, any byte of which but the size may be unknown."""


def ratio_of(look: Look, place: int, packed: int) -> float:
    """Unpacked by packed bytes of a part from a place on."""
    return max((len(look.part.data) - place) / max(look.at + look.part.start + len(look.part.packed) - packed, 1), 1.0)


def entry_headers(part: DeflatePart, seen: Flags) -> Iterator[tuple[int, Header]]:
    """The places of entry headers in a part, and what they say."""
    for place in candidates(part):
        header = header_at(part, place, seen)
        if header is not None:
            yield place, header


def nearest(look: Look, guess: int, flags: int, seen: Flags) -> int | None:
    """The place of the entry header with such flags that is nearest to a place in the stream, of those that do not begin a module."""
    middle = len(look.part.data) * (guess - look.at - look.part.start) / max(len(look.part.packed), 1)
    places = [
        place
        for place, header in entry_headers(look.part, seen)
        if (header.flags ^ flags) & _ALIKE == 0 and not look.part.data.startswith(STRICT_MAGIC, place - CONTAINER.size)
    ]
    return min(places, key=lambda place: abs(place - middle), default=None)
