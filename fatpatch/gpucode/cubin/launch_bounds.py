"""What a kernel demands of its launch, as its cubin states it: threads a block in each dimension, and the shape of clusters."""

from __future__ import annotations

import struct

from fatpatch.formats import numbers as n
from fatpatch.gpucode.cubin.tables import Tables, records

Bounds = tuple[tuple[str, str], ...]
"""(attribute, value in words), in a fixed order."""

_NAMES = {n.EIATTR_MAX_THREADS: "at most", n.EIATTR_REQNTID: "exactly"}
_CLUSTER = {0x3D: "cluster", 0x3E: "cluster", 0x5A: "most blocks of a cluster"}  # CTA_PER_CLUSTER, EXPLICIT_CLUSTER, MAX_CLUSTER_RANK


def launch_bounds(data: bytes) -> dict[str, Bounds]:
    """By kernel name the bounds of each that states some; FormatError when the cubin is damaged."""
    tables = Tables(data)
    result: dict[str, Bounds] = {}
    for name, row in tables.by_name().items():
        if name.startswith(b".nv.info."):
            found = sorted(_described(code, value) for code, value in records(tables.content(row)) if code in _NAMES or code in _CLUSTER)
            if found:
                result[name[len(b".nv.info.") :].decode("utf-8", "backslashreplace")] = tuple(found)
    return result


def _described(code: int, value: bytes) -> tuple[str, str]:
    if code in _NAMES and len(value) >= 12:
        return _NAMES[code], "x".join(map(str, struct.unpack_from("<III", value)))
    return _CLUSTER.get(code, _NAMES.get(code, "")), value.hex()
