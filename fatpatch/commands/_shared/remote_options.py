"""What a command line says about addresses and downloads, kept in click's context until a source is opened."""

from __future__ import annotations

from typing import Any, Final

import click

from fatpatch.base.limits import Remote

_REMOTE: Final = "fatpatch.remote"


def keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    """The callback of an option whose value ``remote_options`` gives."""
    context.meta.setdefault(_REMOTE, {})[parameter.name] = value


def remote_options(context: click.Context) -> dict[str, Any]:
    """The kept values by the names of their options; empty for a command that reads no address."""
    given: dict[str, Any] = context.meta.get(_REMOTE, {})
    return given


def most_fetched(context: click.Context) -> int:
    """The bytes that may be read from a server or from standard input."""
    most: int = remote_options(context).get("max_download", Remote().most)
    return most
