"""``inspect --duplicates``: what each file holds more than once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands.inspect import duplicates_text as render
from fatpatch.gpucode.demangle import readable
from fatpatch.scan.coverage import all_diagnostics
from fatpatch.scan.duplicates import duplicates
from fatpatch.scan.walk import inspected

Writer = Callable[[str], object]


def tell_duplicates(
    files: Sequence[tuple[str, str]], kind: str | None, limits: Limits, jobs: int | None, form: str, out: Writer, *, verbose: bool
) -> int:
    """Write what every file holds twice; the exit code."""
    loop, told = FileLoop(), False
    rows: list[dict[str, Any]] = []
    for path, shown in files:
        with (
            loop.file(path, shown),
            Progress(shown) as progress,
            inspected(path, name=file_name(shown), limits=limits, kind=kind, progress=progress.at) as node,
        ):
            found = duplicates(node, limit=limits.image, jobs=jobs)
            if form == "json":
                rows.append(render.file_json(shown, found))
            else:
                lines = ([""] if told else []) + list(render.text(shown, found, readable, verbose=verbose))
                out("".join(f"{line}\n" for line in lines))
                told = True
            loop.tell([*all_diagnostics(node), *found.diagnostics])
    if form == "json":
        out(json.dumps(render.document(rows), indent=1) + "\n")
    return loop.code
