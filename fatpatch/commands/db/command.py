"""``fatpatch db``: manage indexes."""

from __future__ import annotations

import click

from fatpatch.base.errors import EXIT_OK
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.grouped import GroupOfCommands


@click.group("db", cls=GroupOfCommands)
def command() -> None:
    """Manage indexes."""


@command.command("merge")
@click.argument("out", metavar="INDEX")
@click.argument("others", nargs=-1, required=True, metavar="OTHER...")
def merge(out: str, others: tuple[str, ...]) -> int:
    """Merge OTHER... into INDEX.

    Combines the shards of one audit. INDEX is created if missing. When several indexes hold the same file, the first row is kept.
    """
    from fatpatch.api import queries

    queries.merge(out, others)
    quiet.note(f"merged {len(others)} into {out}")
    return EXIT_OK
