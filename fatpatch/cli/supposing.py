"""``inspect --what-if``: what each file would weigh."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from fatpatch.cli import print_error
from fatpatch.cli.options import print_diagnostics, worse
from fatpatch.cli.progress import Progress
from fatpatch.coverage import all_diagnostics, payloads_below
from fatpatch.errors import FatpatchError, FormatError, InputError
from fatpatch.limits import Limits
from fatpatch.locator import file_name, target_matches
from fatpatch.model import Node
from fatpatch.render import what_if as render
from fatpatch.walk import inspected
from fatpatch.what_if import Plan, plan, savings

Writer = Callable[[str], object]


def suppose(files: Sequence[tuple[str, str]], text: str, kind: str | None, limits: Limits, jobs: int | None, form: str, out: Writer) -> int:
    """Write the savings of every file; the exit code. A usage error for a plan that cannot be read."""
    try:
        wish = plan(text)
    except ValueError as error:
        raise click.BadParameter(f"expected {error}, got {text!r}", param_hint="--what-if") from error
    code = 0
    rows: list[dict[str, Any]] = []
    lines: list[str] = []
    missing, holding = set(wish.drop), False
    for path, shown in files:
        try:
            with (
                Progress(shown) as progress,
                inspected(path, name=file_name(shown), limits=limits, kind=kind, progress=progress.at) as node,
            ):
                missing &= _missing(node, wish)
                holding |= any(payloads_below(node))
                found = list(savings(node, wish, limit=limits.image, jobs=jobs, progress=progress.at))
                diagnostics = [*all_diagnostics(node), *(item for each in found for item in each.diagnostics)]
                if form == "json":
                    rows.append(render.file_json(node._replace(path=shown), found, diagnostics))
                else:
                    lines += render.text(node._replace(path=shown), found, wish)
                print_diagnostics(diagnostics)
                if any(item.level == "error" for item in diagnostics):
                    code = worse(code, FormatError.exit_code)
        except FatpatchError as error:
            error.speak_of(path, shown)
            code = worse(code, error.exit_code)
            print_error(error)
    for pattern in sorted(missing) if code == 0 and holding else ():
        message = f"has no image for {pattern}" if len(files) == 1 else f"no file has an image for {pattern}"
        raise InputError(message, locator=files[0][1], hint=f"'fatpatch inspect {files[0][1]}' lists the targets")
    out(json.dumps(render.document(rows, wish), indent=1) + "\n" if form == "json" else "".join(f"{line}\n" for line in lines))
    return code


def _missing(node: Node, wish: Plan) -> set[str]:
    """The targets to drop that the file does not have: where none has them, it is a slip, not a saving of nothing."""
    there = {image.target for _, payload in payloads_below(node) for image in payload.images}
    return {pattern for pattern in wish.drop if not any(target_matches(target, pattern) for target in there)}
