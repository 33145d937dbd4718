"""Diagnostics as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from fatpatch.base.words import safe
from fatpatch.model.tree import Diagnostic

if TYPE_CHECKING:
    pass


def diagnostic_lines(items: Iterable[Diagnostic]) -> Iterator[str]:
    """One line a diagnostic: level, locator, offset, field, message."""
    for item in items:
        at = "" if item.offset is None else f" at {item.offset:#x}"
        what = f"{item.field}: " if item.field else ""
        yield f"fatpatch: {item.level}: {safe(item.locator)}{at}: {safe(what + item.message)}"
