"""How much of a hostile input is followed: depth, counts, bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All in bytes or counts; the defaults let every real release through and stop every bomb known to us."""

    depth: int = 8
    members: int = 500_000
    unpacked: int = 64 << 30
    ratio: int = 250
    ratio_free: int = 64 << 20
    image: int = 192 << 20
