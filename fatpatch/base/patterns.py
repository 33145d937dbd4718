"""Regular expressions that are compiled when they are first used: a run uses a few of some two hundred."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, AnyStr

_RUNNING = frozenset({"search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split"})


class _Pattern:
    """Stands for a pattern. What is asked of it is kept, so that only the first use of a method comes through here."""

    def __init__(self, text: Any, flags: int = 0) -> None:
        self._text, self._flags = text, flags

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(re.compile(self._text, self._flags), name)
        if name in _RUNNING:
            self.__dict__[name] = found
        return found


if TYPE_CHECKING:

    def lazy_pattern(text: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
        """A pattern as ``re.compile`` makes it."""
        raise NotImplementedError
else:
    lazy_pattern = _Pattern
