"""``inspect --what-if``: what prune and recompress would save in each file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fatpatch.api.naming import Input
from fatpatch.api.savings import savings, what_if
from fatpatch.base.limits import Limits
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.usage import usage_error
from fatpatch.commands.inspect import what_if_text as render

Writer = Callable[[str], object]


def tell_savings(
    files: Sequence[Input], text: str, kind: str | None, limits: Limits, form: str, out: Writer, *, exact: bool = False
) -> int:
    """Write the savings of every file; the exit code. A usage error for a plan that cannot be read."""
    with usage_error("--what-if"):
        plan = what_if(text)._replace(exact=exact)
    loop = FileLoop()
    rows: list[dict[str, Any]] = []
    for each in savings(files, plan, loop.reading(limits), kind):
        loop.tell(each.diagnostics)
        if form == "json":
            rows.append(render.file_json(each.shown, each.saving))
        else:
            out("".join(f"{line}\n" for line in render.text(each.shown, each.saving, plan)))
    if form == "json":
        out(json.dumps(render.document(rows, plan), indent=1) + "\n")
    return loop.code
