"""``fatpatch query``: what an index knows."""

from __future__ import annotations

import os
import sys

import click

from fatpatch.api.queries import QUESTIONS, QueryError, Statement, opened_index, queried, ready
from fatpatch.api.queries import export as export_to
from fatpatch.base.errors import EXIT_OK
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.usage import usage_error

_LIST = "\n".join(f"  {name} {question.argument or ''}".ljust(20) + f"  {question.words}" for name, question in QUESTIONS.items())


@click.command("query", epilog=f"\b\nQueries:\n{_LIST}")
@click.argument("question", required=False, metavar="[QUERY")
@click.argument("argument", required=False, metavar="[ARGUMENT]]")
@click.option("--db", "database", required=True, metavar="INDEX", help="Index written by 'fatpatch audit'.")
@click.option("--sql", metavar="SELECT", help="Run an SQL query; the tables are described in the reference.")
@click.option("--export", type=click.Choice(["parquet", "csv"]), help="Export the result, or all tables if no query is given, to -o PATH.")
@click.option("-o", "--output", metavar="PATH", help="Output path for --export.")
@click.option("--overwrite", "force", is_flag=True, help="Overwrite an existing file.")
@click.option("--format", "form", type=click.Choice(["text", "csv", "json"]), default="text", show_default=True, help="Output format.")
def command(
    question: str | None,
    argument: str | None,
    database: str,
    sql: str | None,
    export: str | None,
    output: str | None,
    force: bool,
    form: str,
) -> int:
    """Run a query on an index.

    QUERY is a built-in query; --sql runs one of your own. The index is not changed."""
    from fatpatch.commands.query import table

    if (export is None) != (output is None):
        raise click.UsageError("--export and -o go together")
    if (question is not None and sql is not None) or (question is None and sql is None and export is None):
        raise click.UsageError("give a query, or --sql")
    if sql is not None and not sql.strip():
        raise click.UsageError("--sql is empty")
    if output is not None and os.path.exists(output) and os.path.exists(database) and os.path.samefile(output, database):
        raise click.UsageError("-o names the index itself")
    statement: Statement | None = None if sql is None else (sql, ())
    if question is not None:
        with usage_error(kind=QueryError):
            statement = ready(question, argument)
    if export is not None and output is not None:
        export_to(database, statement, output, export, replace=force)
        quiet.note(f"wrote {output}")
    elif statement is not None:
        with opened_index(database) as index:
            header, rows = queried(index, statement, bounded=sql is not None)
            for piece in table.pieces(header, rows, form):
                sys.stdout.write(piece)
    return EXIT_OK
