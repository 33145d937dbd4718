"""One run of ``audit``: the list of files, the progress, the sum."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from functools import partial

import click

from fatpatch.api.audit import AuditTask, Examined, audited, inputs_of, served, target_of
from fatpatch.api.naming import Input
from fatpatch.base.errors import EditError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import plural, safe
from fatpatch.base.writing import write_file
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.naming import choices
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.usage import usage_error
from fatpatch.model.target import target_key

_MOST_LINES = 10_000_000
_LONGEST = 10_000


class AuditRequest(NamedTuple):
    """What the command line asks for."""

    files: tuple[str, ...]
    files_from: str | None
    shard: str | None
    cluster: str | None
    simple_index: str | None
    html: str | None
    jobs: int | None
    again: bool
    ndjson: bool
    gpus: tuple[str, ...] = ()


def audit(request: AuditRequest, path: str, limits: Limits) -> int:
    """Bring the index up to date; the exit code."""
    if request.html is not None:
        _refuse_other(request.html)
    with usage_error():
        targets = {name: target_of(name) for name in request.gpus}
    limits = limits._replace(remote=limits.remote._replace(report=None))
    task = AuditTask(_inputs(request, limits), request.jobs, request.cluster, request.again)
    with Progress(f"{len(task.inputs)} files") as progress:
        began = time.monotonic()

        def done(found: Examined, count: int, total: int) -> None:
            rate = count / max(time.monotonic() - began, 0.001)
            progress.at(f"{count} of {total}, {rate:.0f} a second: {safe(found.location)[-40:]}", count, total)
            if request.ndjson:
                sys.stdout.write(json.dumps(_row(found)) + "\n")

        result = audited(task, path, limits, done)
    if request.html is not None:
        from fatpatch.commands.audit.overview import overview_page

        write_file(request.html, [overview_page(path).encode("utf-8", "backslashreplace")], replace=True)
        quiet.note(f"wrote {request.html}")
    for (name, target), (works, count) in zip(targets.items(), served(path, list(targets.values())), strict=True):
        libraries = plural(count, "library", "libraries")
        quiet.note(f"{safe(name)} ({target}): {works} of {libraries} with code for its vendor run")
    fresh = result.files - result.unchanged
    rate = f", {fresh / result.seconds:.0f} a second" if fresh >= result.seconds > 1 else ""
    partly = f" ({result.partly} in part)" if result.partly else ""
    counts = f"{fresh - result.unreadable} read{partly}{rate}, {result.unchanged} unchanged, {result.unreadable} could not be read"
    quiet.note(f"{plural(result.files, 'file')}: {counts}")
    if result.unreadable or result.partly:
        quiet.note(f"  fatpatch query --db {safe(path)} errors")
    return InputError.exit_code if result.unreadable else 0


def _refuse_other(page: str) -> None:
    """EditError when something else than a page is where the page is to be."""
    if not os.path.lexists(page):
        return
    if os.path.isfile(page):
        with open(page, "rb") as there:
            if there.read(64).lstrip().lower().startswith(b"<!doctype html"):
                return
    raise EditError("is there already, and is not a page", locator=page, hint="give another name for the page")


def _inputs(request: AuditRequest, limits: Limits) -> list[Input]:
    if "-" in request.files:
        message = (
            "an index keeps where a file is, which standard input does not say\n  hint: give a path; --files-from - reads a list of paths"
        )
        raise click.UsageError(message)
    names = [*request.files, *(_listed(request.files_from) if request.files_from is not None else ())]
    if not names:
        raise click.UsageError("give files or folders, or --files-from")
    part = None if request.shard is None else _shard(request.shard)
    return inputs_of(names, choices()._replace(remote=limits.remote), simple_index=request.simple_index, part=part)


def _listed(path: str) -> Iterator[str]:
    """The lines of a list, without empty ones and comments."""
    try:
        stream = sys.stdin if path == "-" else open(path, encoding="utf-8-sig", errors="surrogateescape")  # noqa: SIM115 (closed below)
        with stream:
            for count, line in enumerate(iter(partial(stream.readline, _LONGEST + 1), "")):
                if count >= _MOST_LINES or len(line) > _LONGEST:
                    raise InputError("is not a list of files: too many lines, or one that is too long", locator=path)
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
