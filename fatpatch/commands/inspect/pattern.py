"""Regular expressions of users: bounded in time, whatever they are and whatever they are looked for in."""

from __future__ import annotations

import time
from typing import Any

import click

_SECONDS = 5.0


class Pattern:
    """A compiled expression. A search that takes longer than all searches together may is a usage error, never a hang."""

    def __init__(self, text: str, option: str) -> None:
        import regex

        self._option = option
        try:
            self._compiled: Any = regex.compile(text)
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise click.BadParameter(f"not a regular expression: {error}", param_hint=option) from error
        self._left = _SECONDS

    def search(self, text: str) -> bool:
        """Whether the expression matches somewhere in ``text``."""
        began = time.monotonic()
        try:
            return self._compiled.search(text, timeout=max(self._left, 0.01)) is not None
        except TimeoutError as error:
            message = f"takes longer than {_SECONDS:g} seconds to match the names of kernels"
            raise click.BadParameter(message, param_hint=self._option) from error
        finally:
            self._left -= time.monotonic() - began
