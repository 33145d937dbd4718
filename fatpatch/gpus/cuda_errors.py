"""CUDA's error numbers: names and texts (source: cudart and cuda.h, data/README.md). Driver and runtime share the numbers."""

from __future__ import annotations

import functools

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.tables import table


class ErrorText(NamedTuple):
    """``name`` is the driver's (CUresult), or the runtime's where the driver has no such error; ``runtime_name`` is cudart's."""

    name: str
    text: str
    runtime_name: str


def error_text(number: int) -> ErrorText:
    """Names and text of an error: 209 is CUDA_ERROR_NO_BINARY_FOR_GPU. Numbers that are not in the table say so."""
    return _errors().get(number) or ErrorText(f"error {number}", "an error number that is not known here", "")


@functools.lru_cache(maxsize=1)
def _errors() -> dict[int, ErrorText]:
    return {
        int(row["number"]): ErrorText(row["driver_name"] or row["runtime_name"], row["text"], row["runtime_name"])
        for row in table("errors")
    }
