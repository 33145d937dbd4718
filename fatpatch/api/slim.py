"""What slim makes of an environment, a wheel, a folder of wheels, a container image or a library, and what came of each part."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from fatpatch.api.naming import refuse_address
from fatpatch.base.errors import EditError, InputError
from fatpatch.base.leftovers import folder_prefix, remove_folders
from fatpatch.base.records import NamedTuple
from fatpatch.base.shell_word import shell_word
from fatpatch.base.words import size
from fatpatch.base.writing import make_folder, write_file
from fatpatch.edit.report import lost_line
from fatpatch.scan.slim_marks import BESIDE, mark_bytes
from fatpatch.slimming.environment import slim_tree
from fatpatch.slimming.image.slim import slim_image
from fatpatch.slimming.image.store import is_image
from fatpatch.slimming.library import slim_library
from fatpatch.slimming.mark import mark_of
from fatpatch.slimming.request import FAILED, LEFT_ALONE, SLIMMED, LibraryResult, LibraryTask, SlimRequest
from fatpatch.slimming.state import STATE
from fatpatch.slimming.trace import read_trace
from fatpatch.slimming.tree import Tree, tree_of
from fatpatch.slimming.wheel import slim_wheel, wheel_of
from fatpatch.verdicts.alternatives import alternatives, chosen_by

__all__ = [
    "FAILED",
    "LEFT_ALONE",
    "SLIMMED",
    "LibraryResult",
    "OutputError",
    "SlimReport",
    "SlimRequest",
    "SlimRun",
    "SlimmedPackage",
    "lost_line",
    "read_trace",
    "slim",
]


class OutputError(InputError):
    """The result has no name, or one that it cannot have."""


class SlimRun(NamedTuple):
    """``output``: where the result goes, None for the thing itself; ``dry``: nothing is written; ``on_library``: told of each one done."""

    output: str | None
    dry: bool
    jobs: int
    on_library: Callable[[LibraryResult], None]


class SlimmedPackage(NamedTuple):
    """A package with its libraries, as they became."""

    shown: str
    libraries: tuple[LibraryResult, ...]

    @property
    def changed(self) -> tuple[LibraryResult, ...]:
        """Those that get smaller."""
        return tuple(each for each in self.libraries if each.status == SLIMMED)

    @property
    def holding(self) -> tuple[LibraryResult, ...]:
        """Those with device code, and those that were not read."""
        return tuple(each for each in self.libraries if each.code or each.status in (LEFT_ALONE, FAILED))


class SlimReport(NamedTuple):
    """All that is told. ``output``: the result's name; ``undo``: the command that takes it back; ``offers``: what else could go."""

    shown: str
    request: SlimRequest
    packages: tuple[SlimmedPackage, ...]
    dry: bool
    output: str | None
    undo: str | None
    offers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def libraries(self) -> tuple[LibraryResult, ...]:
        """Every library once, the one that saves most first."""
        distinct = {each.shown: each for package in self.packages for each in package.libraries}
        return tuple(sorted(distinct.values(), key=lambda each: (-each.saved, each.shown)))

    @property
    def unknown_kernels(self) -> frozenset[str]:
        """Those of the trace that no library holds or held."""
        return self.request.trace - _kernels_of(self, "kept_kernels") - _kernels_of(self, "lost_kernels")


def _kernels_of(report: SlimReport, field: str) -> frozenset[str]:
    return frozenset(name for each in report.libraries for name in getattr(each, field))


def slim(what: str, shown: str, request: SlimRequest, run: SlimRun) -> SlimReport:
    """Slim an environment, a wheel, a folder of wheels, a container image, or a library; one that fails does not end the others.

    OutputError where the result has no name, or one that it cannot have; EditError where there is something.
    """
    refuse_address(what)
    if not os.path.exists(what):
        raise InputError(
            "no such file or folder",
            locator=shown,
            hint="give an environment, a wheel, a folder of wheels, a container image, or a library",
        )
    if is_image(what):
        return _image_run(what, shown, request, run)
    if wheels := _wheels(what):
        return _wheel_run(shown, wheels, request, run)
    if os.path.isdir(what):
        return _folder_run(what, shown, request, run)
    return _file_run(what, shown, request, run)


def _image_run(what: str, shown: str, request: SlimRequest, run: SlimRun) -> SlimReport:
    output, dry = run.output, run.dry
    if output is None and not dry:
        raise OutputError("an image gets new digests: give a name for it with -o")
    found = slim_image(what, shown, None if dry else output, request, jobs=run.jobs, report=run.on_library, today=_today())
    packages = tuple(SlimmedPackage(layer.shown, layer.results) for layer in found.layers)
    return SlimReport(shown, request, packages, dry, None if dry else output, None, notes=found.notes)


def _wheels(what: str) -> list[str]:
    """The wheels that are meant: one, or those of a folder that holds some."""
    if os.path.isdir(what):
        return sorted(os.path.join(what, name) for name in os.listdir(what) if name.endswith(".whl"))
    return [what] if what.endswith(".whl") else []


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))


def _wheel_run(shown: str, wheels: Sequence[str], request: SlimRequest, run: SlimRun) -> SlimReport:
    output, dry = run.output, run.dry
    if output is None and not dry:
        raise OutputError("a wheel gets a new name: give the folder for it with -o")
    if output is not None:
        make_folder(output)
    packages, names = [], []
    for path in wheels:
        wheel = wheel_of(path)
        results, name = slim_wheel(wheel, None if dry else output, request, jobs=run.jobs, report=run.on_library, today=_today())
        packages.append(SlimmedPackage(wheel.shown, tuple(results)))
        names.append(name)
    target = None if output is None or dry else output if len(names) > 1 else os.path.join(output, names[0])
    notes = ("the wheels have a build tag of their own, which pip prefers: install with --no-index --find-links",) if target else ()
    return SlimReport(shown, request, tuple(packages), dry, target, None, notes=notes)


def _file_run(what: str, shown: str, request: SlimRequest, run: SlimRun) -> SlimReport:
    output, dry = run.output, run.dry
    real = os.path.realpath(what)
    if output is not None and os.path.realpath(output) == real:
        raise OutputError("-o names WHAT itself: use --in-place")
    if output is not None and not dry and os.path.lexists(output):
        raise EditError("exists already", locator=output, hint="choose another name")
    to = None if dry else output or real
    result = slim_library(LibraryTask(real, shown, to, request))
    if to is not None and output is not None and result.status != SLIMMED and result.status != FAILED:
        shutil.copyfile(real, output)
        shutil.copymode(real, output)
    changed = result.status == SLIMMED and to is not None
    if changed and to is not None:
        mark = mark_of(request, {os.path.basename(to): result.size_after}, _today())
        write_file(to + BESIDE, [mark_bytes(mark)], replace=True)
    undo = f"fatpatch undo {shell_word(what)}" if changed and request.record else None
    return SlimReport(shown, request, (SlimmedPackage(shown, (result,)),), dry, (output or what) if changed else None, undo)


def _folder_run(what: str, shown: str, request: SlimRequest, run: SlimRun) -> SlimReport:
    output, dry = run.output, run.dry
    if output is None or dry:
        tree = tree_of(what, shown)
        results = slim_tree(tree, request, dry=dry, jobs=run.jobs, report=run.on_library, today=_today())
        undo = None if dry or not request.record else f"fatpatch undo {shell_word(what)}"
        return _report(tree, shown, request, results, dry, None if dry else what, undo)
    if os.path.lexists(output):
        raise EditError("exists already", locator=output, hint="choose another name")
    home = os.path.dirname(os.path.abspath(output))
    remove_folders(home)
    scratch = tempfile.mkdtemp(prefix=folder_prefix(), dir=home)
    try:
        copy = os.path.join(scratch, os.path.basename(os.path.abspath(output)))
        shutil.copytree(what, copy, symlinks=True, ignore=lambda folder, names: [name for name in names if name == STATE])
        tree = tree_of(copy, shown)
        results = slim_tree(tree, request, dry=False, jobs=run.jobs, report=run.on_library, today=_today())
        os.rename(copy, output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _report(tree, shown, request, results, False, output, None)


def _report(
    tree: Tree, shown: str, request: SlimRequest, results: Sequence[LibraryResult], dry: bool, output: str | None, undo: str | None
) -> SlimReport:
    found = {each.shown: each for each in results}
    linked = [each for each in results if each.shown in tree.linked]
    packages = [SlimmedPackage(package.shown, tuple(found[path] for path in package.files if path in found)) for package in tree.packages]
    if linked:
        packages.append(SlimmedPackage("links", tuple(linked)))
    return SlimReport(shown, request, tuple(packages), dry, output, undo, tuple(_offers(tree, found)))


def _offers(tree: Tree, found: dict[str, LibraryResult]) -> Iterator[str]:
    """Alternatives that a program in this environment does not load, by the CUDA release of its PyTorch. They stay."""
    if tree.where.cuda is None:
        return
    release = tuple(int(part) for part in tree.where.cuda.split("."))
    paths = [path for path in tree.files if path in found and found[path].code]
    for group in alternatives(paths):
        names = [paths[index] for index in group]
        picked = chosen_by(release, names)
        if not picked:
            continue
        others = [name for index, name in enumerate(names) if index not in picked]
        total = sum(found[name].disk_after for name in others)
        yield (
            f"not taken: {', '.join(others)} ({size(total)}): with CUDA {tree.where.cuda} programs here load "
            f"{' or '.join(os.path.basename(names[index]) for index in picked)}; remove them yourself if nothing else uses them"
        )
