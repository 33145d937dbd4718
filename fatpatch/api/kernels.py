"""Kernels: their names as the source spells them, and what they take of an SM."""

from fatpatch.gpucode.demangle import demangle, readable
from fatpatch.gpucode.rows import own_shared

__all__ = ["demangle", "own_shared", "readable"]
