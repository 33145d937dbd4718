"""Numbers in a range, found at every offset of a block of bytes without a loop over them.

Byte by byte the possible values of the upper bytes are looked up with ``bytes.translate``, and the results are combined as one big
integer: some hundred megabytes a second.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

_SET = re.compile(b"\x01")


@functools.lru_cache(maxsize=4096)
def table(values: frozenset[int]) -> bytes:
    """A translation to 1 for the bytes in ``values``, to 0 for all others."""
    return bytes(value in values for value in range(256))


def byte_sets(lowest: int, highest: int, width: int) -> Iterator[tuple[int, frozenset[int]]]:
    """(index, values) for each byte of a little-endian number in [lowest, highest] that cannot have all 256 values."""
    for index in range(width - 1, -1, -1):
        first, last = lowest >> 8 * index, highest >> 8 * index
        if last - first >= 255:
            return
        yield index, frozenset(value & 0xFF for value in range(first, last + 1))


def places(data: bytes, conditions: Iterable[tuple[int, frozenset[int]]], size: int) -> Iterator[int]:
    """The offsets at which ``size`` bytes lie and every condition (index, values of that byte) holds."""
    count = len(data) - size + 1
    if count <= 0:
        return
    combined = -1
    for index, values in conditions:
        lane = int.from_bytes(data[index : index + count].translate(table(values)), "little")
        combined = lane if combined < 0 else combined & lane
        if not combined:
            return
    if combined < 0:
        yield from range(count)
        return
    for found in _SET.finditer(combined.to_bytes(count, "little")):
        yield found.start()


def numbers(data: bytes, lowest: int, highest: int, width: int) -> Iterator[tuple[int, int]]:
    """(offset, value) of every little-endian number of ``width`` bytes in [lowest, highest], which may be negative."""
    if lowest > highest:
        return
    signed = lowest < 0
    for at in places(data, byte_sets(lowest, highest, width), width):
        value = int.from_bytes(data[at : at + width], "little", signed=signed)
        if lowest <= value <= highest:
            yield at, value
