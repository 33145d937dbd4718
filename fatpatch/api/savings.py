"""What prune and recompress would save in files: an estimate, nothing is edited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.edit.report import estimate_line, lost_line, target_table
from fatpatch.edit.rewrite.what_if import Saving, WhatIf, saving
from fatpatch.edit.rewrite.what_if import what_if as parsed
from fatpatch.model.tree import Diagnostic
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.remote.inputs import Input
from fatpatch.scan.coverage import all_diagnostics, payloads_below

__all__ = ["FileSavings", "Saving", "WhatIf", "estimate_line", "lost_line", "savings", "target_table", "what_if"]


class FileSavings(NamedTuple):
    """``saving``: None for a file without GPU code."""

    shown: str
    saving: Saving | None
    diagnostics: tuple[Diagnostic, ...]


def what_if(text: str) -> WhatIf:
    """Read ``drop=sm_50,sm_52;compress=zstd-19``. InputError, saying what is expected, for anything else."""
    try:
        return parsed(text)
    except ValueError as error:
        raise InputError(f"expected {error}, got {text!r}") from error


def savings(files: Iterable[Input], plan: WhatIf, reading: UnitReader, kind: str | None = None) -> Iterator[FileSavings]:
    """What a plan would save in each file that can be read."""
    for unit, node, progress in reading.each(as_units(files), kind):
        with reading.guarded(unit.path, unit.shown):
            found = saving(node, plan, limit=reading.limits.image, progress=progress) if any(payloads_below(node)) else None
            yield FileSavings(unit.shown, found, tuple(all_diagnostics(node)))
