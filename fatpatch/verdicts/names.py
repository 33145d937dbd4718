"""What the names of kernels say of the GPUs that they are for."""

from __future__ import annotations

import re
from typing import Final

from fatpatch.base.patterns import lazy_pattern

_GENERATION: Final = lazy_pattern(r"(?:(?<=_)|\b)(?:sm|cc)_?(\d{2,3})(?![0-9])", re.IGNORECASE)


def generations_named(name: str) -> frozenset[int]:
    """The major versions in a kernel's name: 7 of cutlass_sm75_tensorop..., 9 of ..._cc90_...; none of most."""
    return frozenset(int(number) // 10 for number in _GENERATION.findall(name))
