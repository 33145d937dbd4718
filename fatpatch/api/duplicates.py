"""What files hold more than once: the same images, the same machine code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fatpatch.base.records import NamedTuple
from fatpatch.model.tree import Diagnostic
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.remote.inputs import Input
from fatpatch.scan.coverage import all_diagnostics
from fatpatch.scan.duplicates import Copies, Duplicates, SameKernel
from fatpatch.scan.duplicates import duplicates as found_in

__all__ = ["Copies", "Duplicates", "FileDuplicates", "SameKernel", "duplicates"]


class FileDuplicates(NamedTuple):
    """What a file holds more than once."""

    shown: str
    found: Duplicates
    diagnostics: tuple[Diagnostic, ...]


def duplicates(
    files: Iterable[Input], reading: UnitReader, kind: str | None = None, *, jobs: int | None = None
) -> Iterator[FileDuplicates]:
    """What each file that can be read holds more than once."""

    for unit, node, _ in reading.each(as_units(files), kind):
        with reading.guarded(unit.path, unit.shown):
            found = found_in(node, limit=reading.limits.image, jobs=jobs)
            yield FileDuplicates(unit.shown, found, (*all_diagnostics(node), *found.diagnostics))
