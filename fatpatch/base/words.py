"""Words for numbers and names: sizes, counts, text that is safe on a terminal, aligned columns."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence

from fatpatch.base.locator import UNSAFE

_MAX_TEXT = 2000


def safe(text: str, limit: int = _MAX_TEXT) -> str:
    """Text from a file as a terminal may see it: control and bidirectional characters escaped, very long text cut."""
    if len(text) > limit:
        text = f"{text[:limit]}... ({len(text)} characters)"
    if text.isascii() and text.isprintable():
        return text
    return _unsafe().sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


@functools.lru_cache(maxsize=1)
def _unsafe() -> re.Pattern[str]:
    return re.compile(f"[{UNSAFE}]")


def cell(value: object, limit: int = _MAX_TEXT) -> object:
    """A value as a cell of CSV: text from a file is safe, and no spreadsheet takes it for a formula."""
    if not isinstance(value, str):
        return value
    text = safe(value, limit)
    return f"'{text}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def size(value: int | None) -> str:
    """``3.1 MB``: decimal units; ``-`` when not known."""
    if value is None:
        return "-"
    if value < 1000:
        return f"{value} B"
    amount = value / 1000
    for unit in ("kB", "MB"):
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def plural(count: int, word: str, several: str = "") -> str:
    """``1 image``, ``3 images``; ``several`` is the plural of a word that does not follow the rule."""
    if count == 1:
        return f"{count} {word}"
    return f"{count} {several or word + ('es' if word.endswith(('s', 'x')) else 's')}"


def columns(header: Sequence[str], rows: Iterable[Sequence[str]], left: frozenset[int] = frozenset({0})) -> list[str]:
    """Lines of an aligned table; the columns in ``left`` are flush left, the others flush right."""
    table: list[Sequence[str]] = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    align = [str.ljust if index in left else str.rjust for index in range(len(widths))]
    return ["  ".join([pad(cell, width) for pad, cell, width in zip(align, row, widths, strict=True)]).rstrip() for row in table]
