"""Mistakes in the command line that the library finds: their message as a usage error, with the option."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from fatpatch.base.errors import InputError


@contextmanager
def usage_error(option: str | None = None, kind: type[InputError] = InputError) -> Iterator[None]:
    """What is wrong with a value is a usage error, of ``option`` where that is given; only errors of ``kind`` are."""
    try:
        yield
    except kind as error:
        message = f"{error.message}\n  hint: {error.hint}" if error.hint else error.message
        raise (click.UsageError(message) if option is None else click.BadParameter(message, param_hint=option)) from error
