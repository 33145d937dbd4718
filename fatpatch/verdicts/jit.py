"""What compiling PTX at the first start costs: time on one core and bytes in the cache.

Time follows instructions rather than bytes. The model was fitted on 302 of the 634 modules of jit_h200.json, whose compilation was timed
on an H200's host with driver 580, and tried on the other 332: what was measured is 0.73 to 1.45 times the estimate for 8 of 10 of them,
0.5 to 2 times for 98 of 100 (0.44 to 2.57 for all). The speed of the core scales it. Statements of large kernels are counted in a sample;
of 214 of these modules, of 14 packages, 8 of 10 were then 0.74 to 1.34 times the estimate, 0.77 to 1.34 where all were counted, and 98 of
100 are 0.5 to 2 times either.
"""

from __future__ import annotations

from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.ptx.text import PtxText

_FIXED: Final = 0.0075
_PER_BYTE: Final = 0.18e-6
_PER_STATEMENT: Final = 73e-6
_KERNEL: Final = 25
"""Statements that a kernel costs besides its own, and each operation that becomes many instructions."""
_DOUBLE: Final = 8000
"""Statements of a kernel from which on each of them costs twice as much; up to there the cost of one grows with their number."""
_CACHE_RATIO: Final = 1.49
"""Bytes in the cache to bytes of text (reference: load rules, section D)."""
SLOWEST: Final = 1.45
"""What was measured, as a multiple of the estimate, in the slowest tenth of the modules; FASTEST likewise."""
FASTEST: Final = 0.73


class Cost(NamedTuple):
    """``seconds`` on one core, about; ``cache_bytes`` that ~/.nv/ComputeCache will hold; ``text_bytes`` of PTX."""

    seconds: float
    cache_bytes: int
    text_bytes: int


def estimated(ptx: PtxText) -> Cost:
    """The cost of one module."""
    size = ptx.size
    statements = float(_KERNEL * (len(ptx.counts) - 1 + sum(part.long for part in ptx.counts)))
    for part in ptx.counts:
        count = part.statements
        statements += count + count * min(count, _DOUBLE) / _DOUBLE
    seconds = _FIXED + _PER_BYTE * size + _PER_STATEMENT * statements
    return Cost(seconds, round(size * _CACHE_RATIO), size)


def total(costs: list[Cost]) -> Cost:
    """The sum over modules: one after the other, when all of them are used."""
    return Cost(sum(cost.seconds for cost in costs), sum(cost.cache_bytes for cost in costs), sum(cost.text_bytes for cost in costs))
