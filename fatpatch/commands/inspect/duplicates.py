"""``inspect --duplicates``: what each file holds more than once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fatpatch.api.duplicates import duplicates
from fatpatch.api.kernels import readable
from fatpatch.api.naming import Input
from fatpatch.base.limits import Limits
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands.inspect import duplicates_text as render

Writer = Callable[[str], object]


def tell_duplicates(
    files: Sequence[Input], kind: str | None, limits: Limits, jobs: int | None, form: str, out: Writer, *, verbose: bool
) -> int:
    """Write what every file holds twice; the exit code."""
    loop = FileLoop()
    rows: list[dict[str, Any]] = []
    blank = ""

    for each in duplicates(files, loop.reading(limits), kind, jobs=jobs):
        if form == "json":
            rows.append(render.file_json(each.shown, each.found))
        else:
            out(blank + "".join(f"{line}\n" for line in render.text(each.shown, each.found, readable, verbose=verbose)))
            blank = "\n"
        loop.tell(each.diagnostics)
    if form == "json":
        out(json.dumps(render.document(rows), indent=1) + "\n")
    return loop.code
