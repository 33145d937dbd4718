"""``-`` in place of a file: standard input, kept in a temporary file, since archives are read from their end."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from fatpatch.base.errors import InputError, LimitError
from fatpatch.base.locator import STANDARD_INPUT
from fatpatch.commands._shared.remote_options import most_fetched
from fatpatch.commands._shared.typed import OptionType

if TYPE_CHECKING:
    from typing import BinaryIO

_META: Final = "fatpatch.stdin"
_PIECE: Final = 1 << 20


class InputFile(OptionType[str]):
    """A path, an address, or ``-``, which becomes the path of a temporary file with what standard input held."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value != "-" or ctx is None:
            return value
        if _META not in ctx.meta:
            ctx.meta[_META] = _spooled(ctx)
        path: str = ctx.meta[_META]
        return path


def is_standard_input(path: str) -> bool:
    """Whether a path is that of the temporary file of standard input."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_META) == path


def _spooled(context: click.Context) -> str:
    """Read standard input into a temporary file, which is removed when the command ends. InputError, LimitError."""
    import tempfile

    from fatpatch.base.leftovers import folder_prefix, remove_folders

    stream: BinaryIO | None = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise InputError("is closed", locator=STANDARD_INPUT, hint="give a path, or pipe a file into fatpatch")
    if stream.isatty():
        raise click.UsageError("standard input is a terminal\n  hint: give a path, or pipe a file into fatpatch")
    try:
        remove_folders(tempfile.gettempdir())
        folder = tempfile.TemporaryDirectory(prefix=folder_prefix())
        context.find_root().call_on_close(folder.cleanup)
        path = os.path.join(folder.name, "stdin")
        with open(path, "xb") as sink:
            _copy(stream, sink, most_fetched(context))
    except OSError as error:
        message = f"cannot be kept in a temporary file: {error.strerror}"
        raise InputError(message, locator=STANDARD_INPUT, hint="set TMPDIR to a folder with room, or give a path") from error
    return path


def _copy(stream: BinaryIO, sink: BinaryIO, most: int) -> None:
    size = 0
    while piece := stream.read(_PIECE):
        size += len(piece)
        if size > most:
            raise LimitError(f"holds more than {most} bytes", locator=STANDARD_INPUT, hint="raise --max-download, or give a path")
        sink.write(piece)
