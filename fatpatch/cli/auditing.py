"""One run of ``audit``: the list of files, the progress, the sum."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence

import click

from fatpatch.auditing.database import Database
from fatpatch.auditing.record import Examined
from fatpatch.auditing.run import audit as run
from fatpatch.auditing.run import shard as part
from fatpatch.cli.progress import Progress
from fatpatch.coverage import target_key
from fatpatch.errors import InputError
from fatpatch.inputs import expanded
from fatpatch.limits import Limits
from fatpatch.render.words import plural, safe

_MOST_LINES = 10_000_000
_LONGEST = 10_000


def audit(
    files: Sequence[str],
    files_from: str | None,
    shard: str | None,
    path: str,
    limits: Limits,
    jobs: int | None,
    *,
    again: bool,
    ndjson: bool,
) -> int:
    """Bring the index up to date; the exit code."""
    names = [*files, *(_listed(files_from) if files_from is not None else ())]
    if not names:
        raise click.UsageError("give files or folders, or --files-from")
    inputs = list(expanded(names, names))
    if shard is not None:
        inputs = part(inputs, *_shard(shard))
    database = Database(path, create=True)
    try:
        if again:
            database.forget()
        with Progress(f"{len(inputs)} files") as progress:

            def done(found: Examined, count: int, total: int) -> None:
                progress.at(found.location, count, total)
                if ndjson:
                    sys.stdout.write(json.dumps(_row(found)) + "\n")

            result = run(inputs, database, limits._replace(remote=limits.remote._replace(report=None)), jobs=jobs, on_done=done)
    finally:
        database.close()
    fresh = result.files - result.unchanged
    rate = f", {fresh / result.seconds:.0f} a second" if fresh and result.seconds > 1 else ""
    click.echo(
        f"{plural(result.files, 'file')}: {fresh} read{rate}, {result.unchanged} unchanged, {result.unreadable} could not be read", err=True
    )
    if result.unreadable:
        click.echo(f"  fatpatch query --db {safe(path)} errors", err=True)
    return InputError.exit_code if result.unreadable else 0


def _listed(path: str) -> Iterator[str]:
    """The lines of a list, without empty ones and comments."""
    try:
        stream = sys.stdin if path == "-" else open(path, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 (closed below)
        with stream:
            for count, line in enumerate(stream):
                if count >= _MOST_LINES or len(line) > _LONGEST:
                    raise InputError("is no list of files: too many lines, or one that is too long", locator=path)
                name = line.strip()
                if name and not name.startswith("#"):
                    yield name
    except OSError as error:
        raise InputError(f"cannot open: {error.strerror}", locator=path, hint="a list has one path or address a line") from error


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"expected I/N with I from 1 to N, got {text!r}", param_hint="--shard")
    return int(found[1]), int(found[2])


def _row(found: Examined) -> dict[str, object]:
    contents = found.contents
    targets = sorted({entry.target for entry in contents.entries}, key=target_key) if contents else []
    return {
        "location": found.location,
        "error": found.error,
        "artifact": contents.key if contents else None,
        "targets": targets,
        "findings": len(contents.findings) if contents else None,
    }
