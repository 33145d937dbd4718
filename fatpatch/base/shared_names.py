"""Names side by side: what all of them begin with is said once."""

from __future__ import annotations

from collections.abc import Sequence

_ENDS = ("/", "!", ": ")
_LEAST = 4


def shared_beginning(names: Sequence[str]) -> str:
    """What all names begin with, up to the end of a folder or of an archive's name; nothing where that is short or one name."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)
    length = next((index for index, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), min(len(first), len(last)))
    length = min(length, min(len(name) for name in names) - 1)
    end = max(first.rfind(word, 0, max(length, 0)) + len(word) if word in first[: max(length, 0)] else 0 for word in _ENDS)
    return first[:end] if end >= _LEAST else ""
