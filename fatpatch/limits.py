"""How much of a hostile input is followed: depth, counts, bytes."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """All in bytes or counts; the defaults let every real release through and stop every bomb known to us.

    A run may unpack ``ratio_free`` bytes and ``ratio`` times the size of its input, and never more than ``unpacked``.
    """

    depth: int = 8
    members: int = 500_000
    unpacked: int = 64 << 30
    ratio: int = 100
    ratio_free: int = 64 << 20
    image: int = 128 << 20
    images: int = 100_000
