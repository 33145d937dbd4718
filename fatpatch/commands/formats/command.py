"""``fatpatch formats``: the binary layouts, printed from their declarations."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module

import click

from fatpatch.base.words import columns
from fatpatch.formats._types import FormatDoc, fields
from fatpatch.formats.names import FORMATS


@click.command("formats")
@click.argument("name", required=False, type=click.Choice(FORMATS), metavar="[NAME]")
def command(name: str | None) -> int:
    """Print binary layouts.

    Without NAME, lists the formats."""
    if name is None:
        rows = [(doc.name, doc.title, doc.summary) for doc in map(load, FORMATS)]
        for line in columns(("name", "format", "what it is"), rows, left=frozenset({0, 1, 2})):
            sys.stdout.write(f"{line}\n")
        return 0
    for line in describe(load(name)):
        sys.stdout.write(f"{line}\n")
    return 0


def load(name: str) -> FormatDoc:
    """The DOC of a format."""
    doc: FormatDoc = import_module(f"fatpatch.formats.{name}").DOC
    return doc


def describe(doc: FormatDoc) -> Iterator[str]:
    """The page of one format."""
    yield f"{doc.title}  ({doc.name})"
    yield doc.summary
    for title, layout in doc.layouts:
        yield ""
        yield title
        rows = [
            ("-" if at is None else f"{at:#04x}", "-" if size is None else str(size), name, text) for at, size, name, text in fields(layout)
        ]
        yield from (f"  {line}" for line in columns(("offset", "bytes", "field", "meaning"), rows, left=frozenset({2, 3})))
    for title, values in doc.values:
        yield ""
        yield title
        yield from (f"  {line}" for line in columns(("value", "meaning"), values, left=frozenset({0, 1}))[1:])
    for title, texts in (("Notes", doc.notes), ("Limits", doc.limitations), ("Sources", doc.references)):
        if texts:
            yield ""
            yield title
            yield from (f"  {text}" for text in texts)
