"""The loop over files: each is read in turn, and one that cannot be read does not end the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.model.tree import Node
from fatpatch.named.unit import NamedUnit, opened_unit
from fatpatch.remote.inputs import Input
from fatpatch.scan.walk import Progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fatpatch.scan.walk import Kept


def _raise(error: FatpatchError) -> None:
    raise error


@contextmanager
def silent(shown: str) -> Iterator[Progress]:
    """For those who do not want to know what is being read."""
    yield lambda locator, done, total: None


class ReadUnit(NamedTuple):
    """What was named, its tree, and what is called while it is worked on."""

    unit: NamedUnit
    node: Node
    progress: Progress


class UnitReader(NamedTuple):
    """How files are read. ``progress`` is entered for each and gives what is called meanwhile; ``failed`` gets the error of one that fails.

    Without ``failed`` the first error ends the loop.
    """

    limits: Limits
    failed: Callable[[FatpatchError], None] = _raise
    progress: Callable[[str], AbstractContextManager[Progress]] = silent

    def each(self, units: Iterable[NamedUnit], kind: str | None = None, **kept: Unpack[Kept]) -> Iterator[ReadUnit]:
        """Each unit that can be read; its images can be read until the next one is asked for."""
        for unit in units:
            with self.guarded(), self.opened(unit, kind, **kept) as found:
                yield found

    @contextmanager
    def opened(self, unit: NamedUnit, kind: str | None = None, **kept: Unpack[Kept]) -> Iterator[ReadUnit]:
        """One unit, whose errors speak of it by its name. A kind can be forced on a file only."""
        forced = kind if unit.distribution is None else None
        try:
            with self.progress(unit.shown) as progress, opened_unit(unit, self.limits, progress, forced, **kept) as node:
                yield ReadUnit(unit, node, progress)
        except FatpatchError as error:
            error.speak_of(unit.path, unit.shown)
            raise

    @contextmanager
    def guarded(self, path: str = "", shown: str = "") -> Iterator[None]:
        """What is done with one file: its errors end with it, and speak of it by ``shown``."""
        try:
            yield
        except FatpatchError as error:
            error.speak_of(path, shown)
            self.failed(error)


def as_units(files: Iterable[Input]) -> list[NamedUnit]:
    """Files, each as a unit of its own."""
    return [NamedUnit(each.shown, each.path) for each in files]
