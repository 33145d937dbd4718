"""What compiling PTX at the first start costs: time on one core and bytes in the cache.

The model was fitted to 189 real modules on an H100's host (reference: load rules, section D): within a factor of 0.8 to 1.6 of what was
measured for most modules. Core speed scales it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

_FIXED_MS: Final = 6.0
_MS_PER_MB_OF_HEAD: Final = 170.0
_MS_PER_MB_OF_KERNELS: Final = 2900.0
_CACHE_RATIO: Final = 1.49
SLOWEST: Final = 1 / 0.78
"""What was measured, as a multiple of the estimate, in the slowest tenth of the modules; FASTEST likewise."""
FASTEST: Final = 1 / 1.58


class Cost(NamedTuple):
    """``seconds`` on one core, about; ``cache_bytes`` that ~/.nv/ComputeCache will hold; ``text_bytes`` of PTX."""

    seconds: float
    cache_bytes: int
    text_bytes: int


def cost_of(text: bytes) -> Cost:
    """The cost of one module, from where its text has the first entry."""
    size = len(text.rstrip(b"\0"))
    first = text.find(b".entry")
    head = size if first < 0 else first
    seconds = (_FIXED_MS + (_MS_PER_MB_OF_HEAD * head + _MS_PER_MB_OF_KERNELS * (size - head)) / 1e6) / 1000
    return Cost(seconds, round(size * _CACHE_RATIO), size)


def total(costs: list[Cost]) -> Cost:
    """The sum over modules: one after the other, when all of them are used."""
    return Cost(sum(cost.seconds for cost in costs), sum(cost.cache_bytes for cost in costs), sum(cost.text_bytes for cost in costs))
