"""Options and small things that several commands share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import click

from fatpatch.limits import Limits
from fatpatch.model import Diagnostic


class Bytes(click.ParamType[int]):
    """A size such as 500000, 192M or 4G (powers of 1024)."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().upper().removesuffix("B").removesuffix("I")
        factor = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}.get(text[-1:], 1)
        digits = text[:-1] if factor > 1 else text
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            self.fail(f"{value!r} is not a size; write for example 500000, 192M or 4G", param, ctx)
        return int(digits) * factor


def limits_from(max_image_size: int) -> Limits:
    """The limits of a run."""
    return Limits(image=max_image_size)


image_size_option = click.option(
    "--max-image-size", type=Bytes(), default="128M", show_default=True, help="Refuse to unpack an image larger than this."
)


def shown_paths(paths: Sequence[str]) -> list[str]:
    """How each path is named in results: as given; an absolute one by its last parts, as few as tell it from the others."""
    absolute = [path for path in paths if os.path.isabs(path)]
    parts = {path: path.replace(os.sep, "/").strip("/").split("/") for path in absolute}
    result = []
    for path in paths:
        if path not in parts:
            result.append(path)
            continue
        own = parts[path]
        count = 1
        while count < len(own) and any(other != path and parts[other][-count:] == own[-count:] for other in parts):
            count += 1
        result.append("/".join(own[-count:]))
    return result


def worse(first: int, second: int) -> int:
    """The exit code that says more: unreadable beats malformed beats fine."""
    order = (0, 1, 5, 4, 3)
    return max(first, second, key=lambda code: order.index(code) if code in order else len(order))


def print_diagnostics(items: Iterable[Diagnostic]) -> None:
    """Diagnostics on stderr, a line each."""
    from fatpatch.render.text import diagnostic_lines

    for line in diagnostic_lines(items):
        click.echo(line, err=True)
