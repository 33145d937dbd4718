"""Edits: planned and checked first, then saved; and the way back."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fatpatch.api.documents import plain
from fatpatch.api.edit_run import FileToEdit, PlanOf, grafted, images_given, rewritten
from fatpatch.api.options import EditChoices, EditOptions, GraftChoices, GraftOptions, PathLike
from fatpatch.api.rewrites import expanding, pruning, recompressing
from fatpatch.base.checks import CheckResult
from fatpatch.base.errors import EditError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.edit.graft.plan import GraftRequest
from fatpatch.edit.graft.retag import Retag
from fatpatch.edit.host.host import Options
from fatpatch.edit.transaction.commit import Destination
from fatpatch.edit.transaction.undo import Undone
from fatpatch.edit.transaction.undo import undo as take_back
from fatpatch.edit.verify import independently, soundness
from fatpatch.gpus.devices import find
from fatpatch.model.tree import Diagnostic
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.named.unit import NamedUnit, files_of
from fatpatch.remote.address import scheme_of
from fatpatch.remote.inputs import is_registry_image
from fatpatch.remote.opening import refuse_address
from fatpatch.scan.coverage import parts_not_read, payloads_below

if TYPE_CHECKING:
    from typing_extensions import Unpack

Document = dict[str, Any]


class Plan:
    """An edit that was planned and checked and is not written yet. ``to_dict()`` is the JSON of the command's dry run."""

    def __init__(self, path: str, run: Callable[[Destination], Document]) -> None:
        self.path, self._run = path, run
        self._document = plain(run(Destination(None)))

    def __repr__(self) -> str:
        return f"<fatpatch.Plan for {self.path}: {self.size_before} to {self.size_after} bytes, {len(self.checks)} checks>"

    @property
    def size_before(self) -> int:
        """Bytes of the file."""
        return int(self._document["size_before"])

    @property
    def size_after(self) -> int:
        """Bytes of the result."""
        return int(self._document["size_after"])

    @property
    def checks(self) -> tuple[str, ...]:
        """What was checked of the result, all of which holds."""
        return tuple(check["name"] for check in self._document["checks"])

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of it, in words."""
        return tuple(self._document["notes"])

    def to_dict(self) -> Document:
        """The document of schema fatpatch.graft/1 or fatpatch.edit/1."""
        return self._document

    def save(self, path: PathLike | None = None, *, overwrite: bool = False, record: bool = True) -> Document:
        """Write the result to ``path``, or over the file itself; the document of what was done.

        The file is read and the edit planned again, so that a change in between is no danger. The result is read from scratch and checked
        before it gets its name. With ``record`` ``fatpatch.undo`` can revert it. EditError, and nothing written, where
        it is refused; VerifyError where the result is not as planned.
        """
        real = os.path.realpath(self.path)
        target = real if path is None else os.fspath(path)
        if os.path.realpath(target) != real and os.path.lexists(target) and not (overwrite and os.path.isfile(target)):
            raise EditError("exists already", locator=target, hint="choose another name, or overwrite=True")
        return plain(self._run(Destination(target, overwrite, record)))


def graft(
    path: PathLike,
    *,
    replace: bool = False,
    force: bool = False,
    codec: str | None = None,
    driver: str | None = None,
    **options: Unpack[GraftOptions],
) -> Plan:
    """Plan to put images into a linked binary: ``cubins``, ``ptx``, ``fatbins``, ``hsaco``, or those for ``targets`` of ``donor``.

    Each image finds its module by its kernels; ``modules`` (locators or patterns) and ``members`` (paths in an archive) narrow it;
    ``drop_signature`` and ``limits`` are as in the other edits. ``replace`` takes the place of an image for the same target; ``codec``
    (none, lz4, zstd) is that of the neighbours by default.
    EditError says what would crash the program or compute wrong numbers.
    """
    images = GraftChoices(**options)
    bounds = images.limits or Limits()
    host = Options(drop_signature=images.drop_signature)
    where = tuple(images.modules), tuple(images.members)
    request = GraftRequest(*where, replace, images.rename_hash, force, codec, bounds.image, host, tuple(map(Retag.of, images.retags)))
    if not any((images.cubins, images.ptx, images.fatbins, images.hsaco, images.donor, images.retags)):
        hint = "cubins, ptx, fatbins, hsaco, retags, or donor with targets"
        raise EditError("nothing to graft was given", locator=os.fspath(path), hint=hint)

    shown = os.fspath(path)

    def run(to: Destination) -> Document:
        with images_given(images, bounds) as given:
            return grafted(FileToEdit(shown, shown, to, bounds), given, request, driver).to_dict()

    return Plan(shown, run)


def prune(
    path: PathLike,
    *,
    keep: Sequence[str] = (),
    drop: Sequence[str] = (),
    gpus: Sequence[str] = (),
    compact: bool = False,
    force: bool = False,
    **options: Unpack[EditOptions],
) -> Plan:
    """Plan to take images out: all but the targets ``keep``, the targets ``drop``, or all that none of ``gpus`` loads.

    ``compact`` takes the freed bytes out of the file; ``force`` prunes though a GPU that still runs other modules loses one.
    """
    if bool(keep) + bool(drop) + bool(gpus) != 1:
        raise EditError("give one of keep, drop and gpus", locator=os.fspath(path))
    edit = EditChoices(**options)
    plan_of = pruning(keep, drop, tuple(map(find, gpus)), edit, compact=compact, force=force)
    return _rewriting("prune", path, lambda to: plan_of, edit.limits)


def recompress(
    path: PathLike, codec: str, *, level: int | None = None, compact: bool = False, exact: bool = True, **options: Unpack[EditOptions]
) -> Plan:
    """Plan to compress every image again by ``codec`` (none, lz4, zstd), where that gains or lets an older driver read it.

    Unless ``exact``, the plan of a large file is an estimate from a sample; ``save`` compresses every image.
    """
    edit = EditChoices(**options)

    def plan_to(to: Destination) -> PlanOf:
        return recompressing(codec, level, edit, compact=compact, exact=exact or to.path is not None)

    return _rewriting("recompress", path, plan_to, edit.limits)


def expand(path: PathLike, *, modules: Sequence[str] = (), members: Sequence[str] = (), limits: Limits | None = None) -> Plan:
    """Plan to write concatenated entries, which drivers up to 580 ignore, as plain ones."""
    plan_of = expanding(EditChoices(modules, members, limits=limits))
    return _rewriting("expand", path, lambda to: plan_of, limits)


def undo(path: PathLike, *, last: bool = False) -> Undone:
    """Restore the bytes that a file had before its edits, or before the last one. EditError when there is no record."""
    refuse_address(os.fspath(path))
    return take_back(os.fspath(path), last=last)


def undo_folder(path: PathLike) -> int:
    """Restore all files that slim edited in a folder; how many. EditError when there is no record."""
    from fatpatch.slimming.undo import undo_tree

    return undo_tree(os.fspath(path))


class Soundness(NamedTuple):
    """What ``verify`` found: true when every check holds. ``not_read``: parts that were recognized and not read.

    ``gpu_code``: whether there is any. ``held``: of several files the checks that hold, and for how many.
    """

    checks: tuple[CheckResult, ...]
    not_read: tuple[Diagnostic, ...]
    gpu_code: bool = False
    held: tuple[tuple[str, int], ...] = ()

    def __bool__(self) -> bool:
        return all(check.ok for check in self.checks)


def verify(path: PathLike, *, independent: bool = False, limits: Limits | None = None) -> Soundness:
    """Read every container, fatbin and image whole; after an edit, check its record too. ``independent``: let LIEF alone read it."""
    name = os.fspath(path)
    return verify_unit(NamedUnit(name, name), UnitReader(limits or Limits()), independent=independent)


def verify_unit(given: NamedUnit, reading: UnitReader, *, independent: bool) -> Soundness:
    """``verify`` for all files of what a user named; of several each check begins with its file. The first that cannot be read ends it."""
    several = given.whole or given.distribution is not None
    checks: list[CheckResult] = []
    not_read: list[Diagnostic] = []
    gpu_code = False
    held: Counter[str] = Counter()
    for unit, node, _ in reading.each(map(_real, as_units(files_of([given]))), keep_bytes=True):
        found = list(independently(unit.path, node) if independent else soundness(unit.path, node, reading.limits))
        checks += [check._replace(name=f"{unit.shown}: {check.name}") for check in found] if several else found
        held.update(check.name for check in found if check.ok and several)
        not_read += parts_not_read(node)
        gpu_code = gpu_code or any(payloads_below(node))
    return Soundness(tuple(checks), tuple(not_read), gpu_code, tuple(held.items()))


def _real(unit: NamedUnit) -> NamedUnit:
    """A link is what it leads to: an undo record lies beside that."""
    return unit if scheme_of(unit.path) or is_registry_image(unit.path) else unit._replace(path=os.path.realpath(unit.path))


def _rewriting(command: str, path: PathLike, plan_to: Callable[[Destination], PlanOf], limits: Limits | None) -> Plan:
    shown = os.fspath(path)

    def run(to: Destination) -> Document:
        return rewritten(command, FileToEdit(shown, shown, to, limits or Limits()), plan_to(to)).to_dict()

    return Plan(shown, run)
