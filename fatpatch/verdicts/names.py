"""What the names of kernels say of the GPUs that they are for."""

from __future__ import annotations

import re
from typing import Final

from fatpatch.base.patterns import lazy_pattern

_GENERATION: Final = lazy_pattern(r"(?:(?<=_)|\b|(?<=[45])(?=Sm))(?:sm|cc)_?(\d{2,3})(?![0-9])", re.IGNORECASE)
_LENGTH: Final = lazy_pattern(r"[1-9][0-9]{0,5}")


def generations_named(name: str) -> frozenset[int]:
    """The major versions in a kernel's name: 7 of cutlass_sm75_tensorop..., 9 of ..._cc90_..., 8 of cutlass::arch::Sm80; none of most."""
    return frozenset(int(number) // 10 for number in _GENERATION.findall(name))


def family(name: str) -> str:
    """A mangled name up to its second list of template arguments: what variants of one kernel share.

    ``cutlass::Kernel<cutlass::gemm::kernel::EllGemm`` of a name that goes on with shapes and types; all of a name that has no such lists.
    """
    position, lists = 2, 0
    while name.startswith("_Z") and lists < 2 and position < len(name):
        if (number := _LENGTH.match(name, position)) is not None:
            position = number.end() + int(number[0])
        else:
            lists += name[position] == "I"
            position += 1
    return name[:position] if lists == 2 else name
