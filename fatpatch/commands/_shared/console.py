"""Errors on the terminal, and how much of a line it has."""

from __future__ import annotations

import click

from fatpatch.base.errors import FatpatchError

_LEAST = 24


def print_error(error: FatpatchError) -> None:
    """One error on stderr: where, what, and what to do next."""
    from fatpatch.base.words import safe

    place, words = (safe(error.locator), str(error)[len(error.locator) :]) if error.locator else ("", str(error))
    click.echo(f"fatpatch: error: {place}" + "\n".join(map(safe, words.split("\n"))), err=True)
    if error.hint:
        click.echo("  hint: " + "\n".join(map(safe, error.hint.split("\n"))), err=True)


def room_behind(taken: int) -> int | None:
    """The characters that a line of the terminal has behind ``taken``; None where standard output is not a terminal."""
    import shutil
    import sys

    return max(shutil.get_terminal_size().columns - taken, _LEAST) if sys.stdout.isatty() else None
