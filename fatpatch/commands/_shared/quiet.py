"""``-q``: of the text only the verdict; errors stay on standard error, and documents such as JSON stay as they are."""

from __future__ import annotations

import functools
import io
import sys
from contextlib import redirect_stdout
from typing import Any, Final

import click

_META: Final = "fatpatch.quiet"
_STREAM: Final = "fatpatch.quiet.stream"
_TEXT: Final = ("text", None)


class _Nothing(io.TextIOBase):
    """Takes text and drops it."""

    def write(self, text: str) -> int:
        return len(text)


def asked() -> bool:
    """Whether the run is to be quiet."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(_META))


def verdict(line: str) -> None:
    """Write the one line that a quiet run shows of a text; other runs have it in their text."""
    context = click.get_current_context(silent=True)
    if context is not None and _STREAM in context.meta:
        context.meta[_STREAM].write(f"{line}\n")


def note(line: str) -> None:
    """Write what was done on standard error, unless the run is quiet."""
    if not asked():
        click.echo(line, err=True)


def quiet_option() -> click.Option:
    """``-q`` of ``fatpatch`` itself and of every command."""
    words = "Print the verdict only; errors are still shown."
    return click.Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_keep, help=words)


def ask(context: click.Context) -> None:
    """Make the run quiet."""
    context.meta[_META] = True


def _keep(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ask(context)


def quieted(command: click.Command) -> click.Command:
    """The command with ``-q``: its text is dropped, what ``verdict`` is given is written."""
    if any("--quiet" in parameter.opts for parameter in command.params):
        return command
    if isinstance(command, click.Group):
        for each in command.commands.values():
            quieted(each)
    command.params.append(quiet_option())
    callback = command.callback
    assert callback is not None

    @functools.wraps(callback)
    def called(*arguments: Any, **values: Any) -> Any:
        context = click.get_current_context()
        if not asked() or context.params.get("form") not in _TEXT or context.params.get("ndjson"):
            return callback(*arguments, **values)
        context.meta[_STREAM] = sys.stdout
        with redirect_stdout(_Nothing()):
            return callback(*arguments, **values)

    command.callback = called
    return command
