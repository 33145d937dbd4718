"""The data files beside this module, read when first asked for (their sources: data/README.md)."""

from __future__ import annotations

import functools
import os

from fatpatch.base.errors import InternalError


@functools.cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of ``data/NAME.csv``, in file order."""
    import csv

    path = os.path.join(os.path.dirname(__file__), "data", f"{name}.csv")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return tuple(csv.DictReader(file))
    except OSError as error:
        raise InternalError(f"the table {name}.csv cannot be read", hint="install fatpatch again") from error


def version_key(text: str) -> tuple[int, ...]:
    """A version of numbers and dots as numbers, to compare by: "12.10" is above "12.9". Other parts count as 0."""
    return tuple(int(part) if part.isascii() and part.isdigit() else 0 for part in text.split("."))
