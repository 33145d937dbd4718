"""Rows of a database as text, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fatpatch.base.words import cell, columns, safe


def pieces(header: Sequence[str], rows: Iterable[Sequence[Any]], form: str) -> Iterator[str]:
    """The text in pieces; CSV and JSON do not hold more than a row."""
    names = _apart(header)
    if form == "json":
        yield "["
        for index, row in enumerate(rows):
            yield (",\n" if index else "\n") + json.dumps(dict(zip(names, map(_plain, row), strict=True)))
        yield "\n]\n"
    elif form == "csv":
        yield _line(header)
        yield from map(_line, rows)
    else:
        cells = [tuple("" if value is None else safe(str(value)) for value in row) for row in rows]
        numbers = {index for index in range(len(header)) if cells and all(row[index].lstrip("-").isdigit() for row in cells)}
        yield "".join(f"{line}\n" for line in columns([safe(name) for name in header], cells, left=frozenset(range(len(header))) - numbers))


def _plain(value: Any) -> Any:
    """Bytes have no place in JSON, nor have numbers without end."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.hex() if isinstance(value, bytes) else value


def _apart(header: Sequence[str]) -> list[str]:
    """The names of columns, each once: a name that occurs again gets a number."""
    names: list[str] = []
    for name in header:
        count = 2
        other = name
        while other in names:
            other, count = f"{name}_{count}", count + 1
        names.append(other)
    return names


def _line(row: Sequence[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        [cell(value, sys.maxsize) if isinstance(value, str) else _plain(value) for value in row]
    )
    return buffer.getvalue()
