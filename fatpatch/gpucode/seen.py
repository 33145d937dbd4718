"""What was found in code that occurs again: images for neighbouring targets share many bodies, and stubs are nearly all alike.

Code is told apart by its hash and length, so nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fatpatch.base.records import NamedTuple

_MOST: Final = 1 << 19
"""Bodies that are remembered, some 100 bytes each."""

_Key = tuple[int, int, int]


class PartCounts(NamedTuple):
    """How often things occur in a part of a PTX text: statements (by their semicolons), long operations, braces, the word ``.func``."""

    statements: int
    long: int
    opening: int
    closing: int
    functions: int


class SeenBodies:
    """The classes of bodies, and what their texts count, for all images of one file."""

    def __init__(self) -> None:
        self._classes: dict[_Key, str] = {}
        self._counts: dict[tuple[int, int], PartCounts] = {}

    def body(self, code: bytes, variant: int, classify: Callable[[], str]) -> str:
        """The class of a body (see ``flow``); ``variant``: what else it hangs on."""
        key = (hash(code), len(code), variant)
        found = self._classes.get(key)
        if found is None:
            found = classify()
            if len(self._classes) < _MOST:
                self._classes[key] = found
        return found

    def counts(self, text: bytes, count: Callable[[bytes], PartCounts]) -> PartCounts:
        """What ``count`` says of a text; always the same function."""
        key = (hash(text), len(text))
        found = self._counts.get(key)
        if found is None:
            found = count(text)
            if len(self._counts) < _MOST:
                self._counts[key] = found
        return found
