"""Demangled names, by LLVM's demangler from a maintained wheel; its absence costs the readable name, nothing else."""

from __future__ import annotations

import functools

_MAX_NAME = 16384


@functools.lru_cache(maxsize=65536)
def demangle(name: str) -> str | None:
    """``k(int*)`` of ``_Z1kPi``; None for a name that is not mangled or that no demangler reads."""
    if not name.startswith("_Z") or len(name) > _MAX_NAME:
        return None
    try:
        import pycxxfilt
    except ImportError:
        return _by_pydemumble(name)
    try:
        result: str | None = pycxxfilt.demangle(name)
    except ValueError:
        return None
    return result


def _by_pydemumble(name: str) -> str | None:
    try:
        import pydemumble
    except ImportError:
        return None
    result: str = pydemumble.demangle(name)
    return result or None
