"""An index, or an answer of it, as files for other tools: CSV, or Parquet with the extra [arrow]."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from fatpatch.base.errors import InputError, ToolError
from fatpatch.base.writing import write_file
from fatpatch.index.database import Database

_BATCH = 50_000


def export_tables(index: Database, folder: str, form: str, *, replace: bool) -> None:
    """One file a table in a folder, which is made."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder: {error.strerror}", locator=folder) from error
    for table, columns in index.tables.items():
        path = os.path.join(folder, f"{table}.{form}")
        export_answer(index, f"SELECT * FROM {table} ORDER BY {', '.join(columns)}", (), path, form, replace=replace)


def export_answer(index: Database, question: str, values: Sequence[Any], path: str, form: str, *, replace: bool) -> None:
    """One answer; the file appears whole or not at all."""
    header, rows = index.rows(question, values)
    pieces = _csv(header, rows) if form == "csv" else _parquet(header, rows)
    write_file(path, pieces, replace=replace)


def _csv(header: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> Iterator[bytes]:
    yield _lines([header])
    while batch := list(islice(rows, _BATCH)):
        yield _lines(batch)


def _lines(rows: Iterable[Sequence[Any]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_inert(value) for value in row] for row in rows)
    return buffer.getvalue().encode()


def _inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula; else the value as it is in the index."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _parquet(header: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> Iterator[bytes]:
    """A column is of whole numbers where all its values are, else of text: SQLite's columns have no types of their own."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ToolError("Parquet needs pyarrow, which is not installed", hint="pip install 'fatpatch[arrow]'") from error
    every = list(rows)
    columns = []
    for index in range(len(header)):
        values = [row[index] for row in every]
        whole = all(value is None or isinstance(value, int) for value in values)
        kind = arrow.int64() if whole and any(value is not None for value in values) else arrow.string()
        columns.append(arrow.array(values if kind == arrow.int64() else [None if value is None else str(value) for value in values], kind))
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table(columns, names=list(header)), sink)
    yield sink.getvalue().to_pybytes()
