"""Errors on the terminal."""

from __future__ import annotations

import click

from fatpatch.base.errors import FatpatchError


def print_error(error: FatpatchError) -> None:
    """One error on stderr: where, what, and what to do next."""
    from fatpatch.base.words import safe

    place, told = (safe(error.locator), str(error)[len(error.locator) :]) if error.locator else ("", str(error))
    click.echo(f"fatpatch: error: {place}" + "\n".join(map(safe, told.split("\n"))), err=True)
    if error.hint:
        click.echo("  hint: " + "\n".join(map(safe, error.hint.split("\n"))), err=True)
