"""``inspect --duplicates``: what each file holds more than once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fatpatch.base.limits import Limits
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands.inspect import duplicates_text as render
from fatpatch.gpucode.demangle import readable
from fatpatch.model.tree import Node
from fatpatch.remote.inputs import Input
from fatpatch.scan.coverage import all_diagnostics
from fatpatch.scan.duplicates import duplicates
from fatpatch.scan.walk import Progress

Writer = Callable[[str], object]


def tell_duplicates(
    files: Sequence[Input], kind: str | None, limits: Limits, jobs: int | None, form: str, out: Writer, *, verbose: bool
) -> int:
    """Write what every file holds twice; the exit code."""
    loop = FileLoop()
    rows: list[dict[str, Any]] = []
    blank = ""

    def tell(shown: str, node: Node, _: Progress) -> None:
        nonlocal blank
        found = duplicates(node, limit=limits.image, jobs=jobs)
        if form == "json":
            rows.append(render.file_json(shown, found))
        else:
            out(blank + "".join(f"{line}\n" for line in render.text(shown, found, readable, verbose=verbose)))
            blank = "\n"
        loop.tell([*all_diagnostics(node), *found.diagnostics])

    loop.each(files, limits, kind, tell)
    if form == "json":
        out(json.dumps(render.document(rows), indent=1) + "\n")
    return loop.code
