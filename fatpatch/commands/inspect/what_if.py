"""``inspect --what-if``: what prune and recompress would save in each file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands.inspect import what_if_text as render
from fatpatch.edit.rewrite.what_if import saving, what_if
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.scan.walk import inspected

Writer = Callable[[str], object]


def tell_savings(files: Sequence[tuple[str, str]], text: str, kind: str | None, limits: Limits, form: str, out: Writer) -> int:
    """Write the savings of every file; the exit code. A usage error for a plan that cannot be read."""
    try:
        wish = what_if(text)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}, got {text!r}", param_hint="--what-if") from error
    loop = FileLoop()
    rows: list[dict[str, Any]] = []
    for path, shown in files:
        with (
            loop.file(path, shown),
            Progress(shown) as progress,
            inspected(path, name=file_name(shown), limits=limits, kind=kind, progress=progress.at) as node,
        ):
            found = saving(node, wish, limit=limits.image, progress=progress.at) if any(payloads_below(node)) else None
            loop.tell(list(all_diagnostics(node)))
            if form == "json":
                rows.append(render.file_json(shown, found))
            else:
                out("".join(f"{line}\n" for line in render.text(shown, found, wish)))
    if form == "json":
        out(json.dumps(render.document(rows, wish), indent=1) + "\n")
    return loop.code
