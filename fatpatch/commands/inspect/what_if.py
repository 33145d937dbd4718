"""``inspect --what-if``: what prune and recompress would save in each file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from fatpatch.base.limits import Limits
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands.inspect import what_if_text as render
from fatpatch.edit.rewrite.what_if import saving, what_if
from fatpatch.model.tree import Node
from fatpatch.remote.inputs import Input
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.scan.walk import Progress

Writer = Callable[[str], object]


def tell_savings(
    files: Sequence[Input], text: str, kind: str | None, limits: Limits, form: str, out: Writer, *, exact: bool = False
) -> int:
    """Write the savings of every file; the exit code. A usage error for a plan that cannot be read."""
    try:
        request = what_if(text)._replace(exact=exact)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}, got {text!r}", param_hint="--what-if") from error
    loop = FileLoop()
    rows: list[dict[str, Any]] = []

    def tell(shown: str, node: Node, progress: Progress) -> None:
        found = saving(node, request, limit=limits.image, progress=progress) if any(payloads_below(node)) else None
        loop.tell(list(all_diagnostics(node)))
        if form == "json":
            rows.append(render.file_json(shown, found))
        else:
            out("".join(f"{line}\n" for line in render.text(shown, found, request)))

    loop.each(files, limits, kind, tell)
    if form == "json":
        out(json.dumps(render.document(rows, request), indent=1) + "\n")
    return loop.code
