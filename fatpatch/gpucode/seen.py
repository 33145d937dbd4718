"""What was found in code that occurs again: images for neighbouring targets share many bodies, and stubs are nearly all alike.

Code is told apart by its hash and length, so nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fatpatch.base.records import NamedTuple

_MOST: Final = 1 << 19
"""Bodies that are remembered, some 100 bytes each."""

CodeKey = tuple[int, int]
"""Hash and length."""


def key_of(code: bytes | memoryview) -> CodeKey:
    """What code is told apart by."""
    return hash(code), len(code)


class PartCounts(NamedTuple):
    """What stands in a part of a PTX text: statements (by their semicolons) and long operations, of a large part about; the word ``.func``.

    ``unclosed``: opening braces less closing ones. ``traps``: whether the word ``trap`` occurs.
    """

    statements: int
    long: int
    unclosed: int
    functions: int
    traps: bool


class SeenBodies:
    """The classes of bodies, and what their texts count, for all images of one file."""

    def __init__(self) -> None:
        self._classes: dict[tuple[CodeKey, int], str] = {}
        self._counts: dict[CodeKey, PartCounts] = {}

    def body(self, key: CodeKey, variant: int, classify: Callable[[], str]) -> str:
        """The class of a body (see ``flow``); ``variant``: what else it hangs on."""
        found = self._classes.get((key, variant))
        if found is None:
            found = classify()
            if len(self._classes) < _MOST:
                self._classes[key, variant] = found
        return found

    def counts(self, key: CodeKey, count: Callable[[], PartCounts]) -> PartCounts:
        """What ``count`` says of a part of a text."""
        found = self._counts.get(key)
        if found is None:
            found = count()
            if len(self._counts) < _MOST:
                self._counts[key] = found
        return found
