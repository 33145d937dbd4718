"""Names of NVIDIA's generations by SM number (source: NVIDIA's pages of compute capabilities)."""

from __future__ import annotations

from typing import Final

_GENERATIONS: Final = (  # from this SM number on; single numbers that stand out of their row come first
    (101, 101, "Blackwell"),
    (107, 107, "Rubin"),
    (10, 19, "Tesla"),
    (20, 29, "Fermi"),
    (30, 39, "Kepler"),
    (50, 59, "Maxwell"),
    (60, 69, "Pascal"),
    (70, 72, "Volta"),
    (75, 75, "Turing"),
    (80, 88, "Ampere"),
    (89, 89, "Ada"),
    (90, 90, "Hopper"),
    (100, 121, "Blackwell"),
)


def generation(arch: int) -> str:
    """``Pascal`` for 61; empty for a number of no generation known here."""
    return next((name for low, high, name in _GENERATIONS if low <= arch <= high), "")
