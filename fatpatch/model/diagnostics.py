"""Collects what readers complain about, so that one bad child never hides the rest."""

from __future__ import annotations

from fatpatch.base.errors import FatpatchError, FormatError
from fatpatch.model.tree import Diagnostic

LIMIT = 500
NOT_READ = "container"
"""The field of a diagnostic about a file or container that is recognised and not read: it is never "no GPU code"."""


class Diagnostics:
    """An append-only list of diagnostics; past ``LIMIT`` only their number is kept."""

    def __init__(self) -> None:
        self._items: list[Diagnostic] = []
        self._left_out = 0

    def add(self, level: str, locator: str, offset: int | None, message: str, *, field: str | None = None) -> None:
        """Record one complaint about ``field`` of the thing at ``locator``, ``offset`` bytes into its file."""
        if len(self._items) >= LIMIT:
            self._left_out += 1
            return
        self._items.append(Diagnostic(locator=locator, level=level, offset=offset, message=message, field=field))

    def error(self, locator: str, offset: int | None, message: str, *, field: str | None = None) -> None:
        """Record damage: something could not be read as its format demands."""
        self.add("error", locator, offset, message, field=field)

    def warning(self, locator: str, offset: int | None, message: str, *, field: str | None = None) -> None:
        """Record a contradiction that did not stop the reader."""
        self.add("warning", locator, offset, message, field=field)

    @property
    def any_not_read(self) -> bool:
        """Whether something that is not read was recorded."""
        return any(item.field == NOT_READ for item in self._items)

    def not_read(self, locator: str, offset: int, message: str) -> None:
        """Record something that is recognised and not read."""
        self.add("warning", locator, offset, message, field=NOT_READ)

    def caught(self, locator: str, error: FatpatchError, *, base: int = 0) -> None:
        """Record an error that ended the reading of one child; ``base`` is added to its offset. What is not damaged was not read."""
        offset = None if error.offset is None else base + error.offset
        if isinstance(error, FormatError):
            self.error(error.locator or locator, offset, error.message, field=error.field)
        else:
            self.add("warning", error.locator or locator, offset, error.message, field=NOT_READ)

    def finish(self) -> tuple[Diagnostic, ...]:
        """Everything recorded, in order of record."""
        if self._left_out:
            last = self._items[-1]
            self._items.append(
                Diagnostic(locator=last.locator, level="warning", offset=None, message=f"{self._left_out} further diagnostics left out")
            )
            self._left_out = 0
        return tuple(self._items)
