"""A unit of judgement that a user named: one file or address, or a package, process or folder with its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits, Remote
from fatpatch.base.locator import escape, file_name
from fatpatch.base.records import NamedTuple
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node
from fatpatch.remote.inputs import Input, expanded
from fatpatch.scan.walk import Progress, inspected

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from fatpatch.scan.distributions import Distribution, FileAhead, Installed
    from fatpatch.scan.walk import Kept


class NamingChoices(NamedTuple):
    """By what names are resolved. ``python``: an environment or its Python, None for the active one.

    ``index_url``: of packages, None for that of pip's or npm's configuration; ``platform`` and ``python_version`` as pip takes them.
    """

    python: str | None = None
    index_url: str | None = None
    platform: str | None = None
    python_version: str | None = None
    remote: Remote = Remote()


class NamedUnit(NamedTuple):
    """``shown``: its name for a user. Either a ``path`` (or address), or a ``distribution``; ``where``: what is installed beside that.

    ``whole``: it is all of a folder, of which the distributions are units of their own. ``parts``: files that are judged as one, or
    when it is ``whole`` each by itself. ``problem``: why a word names nothing. ``ahead``: the files of the distribution, when they were
    read before.
    """

    shown: str
    path: str = ""
    distribution: Distribution | None = None
    where: Installed | None = None
    whole: bool = False
    parts: tuple[NamedUnit, ...] = ()
    problem: FatpatchError | None = None
    ahead: tuple[FileAhead, ...] | None = None

    @property
    def units(self) -> tuple[NamedUnit, ...]:
        """Of a folder its distributions, else the unit itself."""
        if self.whole and self.parts:
            return self.parts
        if not self.whole or self.where is None:
            return (self,)
        return tuple(NamedUnit(each.shown, "", each, self.where) for each in self.where.distributions)


def read_ahead(units: Sequence[NamedUnit], limits: Limits) -> Sequence[NamedUnit]:
    """The units of a folder, their files read by all processors where there is much to read; other units as they are."""
    distributions = [unit.distribution for unit in units if unit.distribution is not None]
    if not 1 < len(distributions) == len(units):
        return units
    from fatpatch.scan import files_ahead

    read = files_ahead.read_ahead(distributions, limits)
    return [unit._replace(ahead=ahead) for unit, ahead in zip(units, read, strict=True)] if read else units


@contextmanager
def opened_unit(
    unit: NamedUnit, limits: Limits, progress: Progress | None = None, kind: str | None = None, **kept: Unpack[Kept]
) -> Iterator[Node]:
    """The unit as one tree; that of a distribution has its files as members. ``kind`` forces the reader of a file.

    FatpatchError when it cannot be read, or names nothing.
    """
    if unit.problem is not None:
        raise unit.problem
    if unit.distribution is not None:
        from fatpatch.scan.distributions import opened

        with opened(unit.distribution, limits, progress, None if kept else unit.ahead, **kept) as node:
            yield node
        return
    if unit.parts:
        with _together(unit, limits, progress, **kept) as node:
            yield node
        return
    with inspected(unit.path, name=file_name(unit.shown), limits=limits, kind=kind, progress=progress, **kept) as node:
        yield node._replace(path=unit.shown)


@contextmanager
def _together(unit: NamedUnit, limits: Limits, progress: Progress | None, **kept: Unpack[Kept]) -> Iterator[Node]:
    """Several files as the members of one node. FatpatchError when one cannot be read."""
    label = escape(unit.shown)
    with ExitStack() as stack:
        members = []
        for part in unit.parts:
            name = file_name(part.shown)
            node = stack.enter_context(inspected(part.path, name=name, inside=label, limits=limits, progress=progress, **kept))
            members.append(node._replace(path=name))
        yield Node(
            label,
            unit.shown,
            sum(node.size for node in members),
            ContainerKind.FOLDER,
            "",
            tuple(members),
            (),
            (),
            member_count=len(members),
        )


def files_of(units: Sequence[NamedUnit]) -> list[Input]:
    """The files of all units, each once, for commands that read them one by one; of a folder every file, whatever its name."""
    found: dict[str, Input] = {}
    for unit in units:
        for row in _files(unit):
            found.setdefault(row.path, row)
    return list(found.values())


def _files(unit: NamedUnit) -> Iterator[Input]:
    if unit.problem is not None and ":" in unit.path:
        raise unit.problem
    if unit.distribution is not None:
        from fatpatch.scan.distributions import places

        each = unit.distribution
        owner = each.shown if each.version else ""
        for path, real in places(each):
            yield Input(real, f"{unit.shown}/{path}", named=False, origin=unit.shown, distribution=owner)
        return
    if unit.parts:
        for part in unit.parts:
            yield Input(part.path, part.shown, named=True, origin=unit.shown, distribution=unit.shown)
        return
    owners = _owners(unit)
    for row in expanded([unit.path], [unit.shown]):
        yield row._replace(distribution=owners.get(os.path.realpath(row.path), "")) if owners else row


def _owners(unit: NamedUnit) -> dict[str, str]:
    """The distribution of each library of a folder, by its real path."""
    if unit.where is None:
        return {}
    return {
        os.path.realpath(os.path.join(each.root, path)): each.shown
        for each in unit.where.distributions
        if each.version
        for path in each.files
    }
