"""What an index of audited files knows, and how indexes are combined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fatpatch.base.errors import InputError
from fatpatch.index.database import Bounds, Database
from fatpatch.index.questions import QUESTIONS

__all__ = ["QUESTIONS", "QueryError", "Statement", "export", "merge", "opened_index", "queried", "ready"]


class QueryError(InputError):
    """There is no such query, or it takes other arguments."""


_DEFAULTS = {"COUNT": "20"}
Statement = tuple[str, Sequence[object]]
"""SQL, and the values for its question marks."""


@contextmanager
def opened_index(path: str, *, create: bool = False) -> Iterator[Database]:
    """An index, closed at the end. InputError for a file that is none."""
    index = Database(path, create=create)
    try:
        yield index
    finally:
        index.close()


def ready(name: str, argument: str | None) -> Statement:
    """A built-in query with its argument. QueryError for one that does not exist, or takes another."""
    question = QUESTIONS.get(name)
    if question is None:
        raise QueryError(f"unknown query {name!r}; known queries: {', '.join(QUESTIONS)}")
    if question.argument is None:
        if argument is not None:
            raise QueryError(f"{name} takes no argument")
        return question.sql, ()
    argument = argument or _DEFAULTS.get(question.argument)
    if argument is None:
        raise QueryError(f"{name} needs a {question.argument}")
    return question.sql, question.values(argument)


def queried(index: Database, statement: Statement, *, bounded: bool) -> tuple[Sequence[str], Iterable[Sequence[Any]]]:
    """(names of columns, rows) of a query; ``bounded`` in time and size for a statement of a user's own."""
    return index.rows(*statement, Bounds() if bounded else None)


def export(path: str, statement: Statement | None, output: str, form: str, *, replace: bool) -> None:
    """Write the answer to a query, or all tables without one, as ``parquet`` or ``csv``."""
    from fatpatch.index.export import export_answer, export_tables

    with opened_index(path) as index:
        if statement is None:
            export_tables(index, output, form, replace=replace)
        else:
            export_answer(index, *statement, output, form, replace=replace)


def merge(path: str, others: Sequence[str]) -> None:
    """Add the rows of other indexes to one, which is created if missing. InputError for a file that is not a fatpatch index."""
    for other in others:
        Database(other, create=False).close()  # before the first is made
    with opened_index(path, create=True) as index:
        for other in others:
            index.merge(other)
