"""A part of a deflate stream (RFC 1951) unpacked from its middle: where a block begins is found by trying, as pugz and rapidgzip do.

Bytes that refer to what lies before the part are not known. The part is unpacked twice, with different bytes in their place: what is the
same both times is taken as known.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple

_WINDOW: Final = 32 << 10
_FIRST, _SECOND = bytes(_WINDOW), b"\xff" * _WINDOW
_STEP: Final = 4096
_PROBE: Final = 8192
_SEARCHED: Final = 96 << 10
_GROWTH: Final = 32
_LONG: Final = 4
"""The high byte of the length of a stored block that counts: at least 1 KiB."""

_CLASS: Final = b"[" + b"".join(b"\\x%02x" % each for each in range(256) if each & 7 == 4 and each >> 3 < 30) + b"]"
_DYNAMIC = lazy_pattern(_CLASS)
"""The first byte of a block with codes of its own that is not the last: bits 0, 0, 1, then the number of literal codes, at most 29."""

_EMPTY: Final = (0b10, 10)
_ONE_BYTE: Final = (0b10011010, 19)
"""(bits, their number) of blocks with the fixed codes: one without content, and one of the single byte 144."""


class DeflatePart(NamedTuple):
    """``data``: the bytes, ``other``: the same with other bytes in place of the unknown ones. ``start``: about where
    they begin in the part. ``ended``: the stream ends with them. ``packed``: what they were unpacked from, up to the end of the part.
    """

    data: bytes
    other: bytes
    start: int
    ended: bool
    packed: bytes = b""

    def packed_before(self, place: int) -> int:
        """How many of the packed bytes the data before a place takes."""
        stream = zlib.decompressobj(-15, zdict=_FIRST)
        stream.decompress(self.packed, max(place, 1))
        return len(self.packed) - len(stream.unconsumed_tail)

    def known(self, start: int, end: int) -> bool:
        """Whether the bytes [start, end) are there and known."""
        return 0 <= start < end <= len(self.data) and self.data[start:end] == self.other[start:end]

    def likely(self, start: int, end: int) -> bool:
        """Whether the bytes [start, end) are there, and known or zero: what copies zeros from before the part is not known to be so."""
        pairs = zip(self.data[start:end], self.other[start:end], strict=False)
        return 0 <= start < end <= len(self.data) and all(one == two or not one for one, two in pairs)


def from_start(packed: bytes, most: int) -> bytes:
    """The first ``most`` bytes that a stream unpacks to, as far as ``packed`` goes; nothing of what is no stream."""
    try:
        return zlib.decompressobj(-15).decompress(packed, most)
    except zlib.error:
        return b""


def from_middle(packed: bytes) -> DeflatePart | None:
    """What a part of a stream unpacks to, from the first block on whose beginning is found; None where none is. What follows a stream is
    no part of it.

    Bounded: 96 KiB are searched, and at most 32 times the bytes of the part are unpacked.
    """
    most = _GROWTH * len(packed)
    for rest, skipped in _beginnings(packed):
        first, second = zlib.decompressobj(-15, zdict=_FIRST), zlib.decompressobj(-15, zdict=_SECOND)
        try:
            data, other = first.decompress(rest, most), second.decompress(rest, most)
        except zlib.error:
            continue
        if first.unused_data:  # no stream ends before the last byte
            continue
        return DeflatePart(data[skipped:], other[skipped:], len(packed) - len(rest), first.eof, rest)
    return None


def _beginnings(packed: bytes) -> Iterator[tuple[bytes, int]]:
    """(the stream from there, bytes that it unpacks to before that) of places where a block seems to begin, the first ones first."""
    for base in range(0, min(len(packed), _SEARCHED), _STEP):
        yield from _stored(packed, base)
        yield from _dynamic(packed, base)


def _stored(packed: bytes, base: int) -> Iterator[tuple[bytes, int]]:
    """Blocks that are not packed: their length, and the same inverted."""
    for at in range(max(base, 1), min(len(packed) - 4, base + _STEP)):
        if packed[at] ^ packed[at + 2] == 0xFF and packed[at + 1] ^ packed[at + 3] == 0xFF and packed[at + 1] >= _LONG:
            yield b"\0" + packed[at:], 0


def _dynamic(packed: bytes, base: int) -> Iterator[tuple[bytes, int]]:
    """Blocks with codes of their own: what follows unpacks for 8 KiB."""
    window = packed[base : base + _STEP + _PROBE]
    for shift in range(8):
        bits = _shifted(window, shift)
        for found in _DYNAMIC.finditer(bits, 0, _STEP):
            at = found.start()
            if at + 1 >= len(bits) or bits[at + 1] & 31 > 29:
                continue
            stream, skipped = _entered(window[at : at + _PROBE], shift)
            trial = zlib.decompressobj(-15, zdict=_FIRST)
            try:
                unpacked = trial.decompress(stream, _GROWTH * _PROBE)
            except zlib.error:
                continue
            if trial.eof or len(unpacked) >= min(_PROBE, len(window) - at) // 2:
                yield _entered(packed[base + at :], shift)[0], skipped


def _entered(data: bytes, bit: int) -> tuple[bytes, int]:
    """A stream that goes on at a bit of the first byte, and how many bytes it unpacks to before that.

    What is stored begins at a byte, so the bits before are replaced by whole blocks, not cut off.
    """
    prefix, length, blocks = 0, 0, (_ONE_BYTE, *3 * (_EMPTY,))
    for bits, size in blocks[1 - bit % 2 : 1 + (bit - 3 * (bit % 2)) % 8 // 2]:
        prefix |= bits << length
        length += size
    whole = length - bit
    head = (prefix & (1 << whole) - 1).to_bytes(whole // 8, "little")
    return head + bytes((data[0] & -1 << bit & 0xFF | prefix >> whole,)) + data[1:], bit % 2


def _shifted(data: bytes, bits: int) -> bytes:
    """The bytes from a bit on, the lowest first."""
    return (int.from_bytes(data, "little") >> bits).to_bytes(len(data), "little") if bits else data
