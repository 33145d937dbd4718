"""The verdict on a folder of kernel libraries: a program loads the files for its own GPU, so those for others say nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fatpatch.base.words import plural
from fatpatch.gpus.amd import first_processor
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import ContainerKind, Vendor
from fatpatch.model.tree import Diagnostic, Node
from fatpatch.scan.coverage import members_below
from fatpatch.scan.kernel_folders import MIOPEN, KernelFolder, TargetFiles, folder_of, is_kernel_file, kernel_folders, root_of
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.module import FAILS
from fatpatch.verdicts.results import FileVerdict

_MAX_NAMES = 3
_WITHOUT = {
    "rocBLAS": "ends the program (Cannot read TensileLibrary.dat)",
    "hipBLASLt": "returns an error",
    "hipSPARSELt": "returns an error",
}


def with_kernel_folders(
    node: Node, units: Sequence[FileVerdict], environment: Environment, whole: Callable[[Node, Sequence[FileVerdict]], FileVerdict]
) -> list[FileVerdict]:
    """The verdicts on the libraries of a file, with one for each folder of kernel libraries in the place of those of its files.

    A library whose folder lies beside it fares as that. ``whole`` makes the verdict on a node of those on some libraries in it.
    """
    if environment.device.vendor != Vendor.AMD:
        return list(units)
    folders = kernel_folders_below(node)
    names = {each.folder for each in folders}
    mine: dict[str, list[FileVerdict]] = {}
    rest = []
    for unit in units:
        if is_kernel_file(unit.node.path) and (place := folder_of(unit.node.path)) in names:
            mine.setdefault(place, []).append(unit)
        else:
            rest.append(_with_beside(unit, environment))
    judged = [_judged(each, mine[each.folder], environment, whole) for each in folders if each.folder in mine and each.library != MIOPEN]
    return [*rest, *judged]


def elsewhere_than_here(node: Node) -> Diagnostic | None:
    """Where the kernels of a library are that has none itself, as far as its name and what lies beside it tell."""
    folders = kernel_folders(node.kernel_files) if not node.members else []
    if not folders:
        return None
    message = f"its kernels are in the folder {folders[0].folder} beside it: ask for that"
    return Diagnostic(node.locator, "warning", None, message, NOT_READ)


def kernel_folders_below(node: Node) -> list[KernelFolder]:
    """The folders of kernel libraries of a folder or archive, and of those in it."""
    holders = [each for each in (*members_below(node), node) if each.kernel_files and each.members]
    return [each for holder in holders for each in kernel_folders(holder.kernel_files, root_of(holder.detail))]


def _with_beside(unit: FileVerdict, environment: Environment) -> FileVerdict:
    """The verdict on a library, which needs its folder of kernels."""
    for folder in kernel_folders(unit.node.kernel_files) if not unit.node.members and not is_kernel_file(unit.node.path) else ():
        files = _of(folder, environment.device.target.split(":")[0])
        if files is None and unit.trouble is None:
            return unit._replace(trouble=(None, _nothing(folder, environment)))
        if files is not None and files.missing:
            return unit._replace(incomplete=_lacking(folder, files.missing))
    return unit


def _judged(
    folder: KernelFolder,
    units: Sequence[FileVerdict],
    environment: Environment,
    whole: Callable[[Node, Sequence[FileVerdict]], FileVerdict],
) -> FileVerdict:
    place = folder.folder or units[0].node.path.rpartition("/")[0] or folder.library
    holder = units[0].node._replace(
        path=place, size=sum(unit.node.size for unit in units), container=ContainerKind.FOLDER, payloads=(), members=()
    )
    own = [unit for unit in units if any(module.verdict.verdict != FAILS for module in unit.modules)]
    if not own:
        found = whole(holder, units)
        return found._replace(trouble=(None, _nothing(folder, environment)), hidden="")
    found = whole(holder, own)
    files = _of(folder, environment.device.target.split(":")[0])
    lacks = () if files is None else files.missing
    return found._replace(incomplete=_lacking(folder, lacks) if lacks else "")


def _of(folder: KernelFolder, processor: str) -> TargetFiles | None:
    """The files for a processor, or for the family that it belongs to."""
    generic = next((each for each in folder.targets if first_processor(each.target) == processor), None)
    return folder.of(processor) or generic


def folder_trouble(folder: KernelFolder, environment: Environment) -> str:
    """What stands against a folder on a GPU, by the names of its files; empty where nothing does."""
    files = _of(folder, environment.device.target.split(":")[0])
    if files is None:
        return _nothing(folder, environment)
    return _lacking(folder, files.missing) if files.missing else ""


def _nothing(folder: KernelFolder, environment: Environment) -> str:
    there = ", ".join(each.target for each in folder.targets)
    consequence = _WITHOUT.get(folder.library, "fails")
    where = folder.folder or "this folder"
    return f"no files for {environment.device.target} in {where}, only for {there}: {folder.library} {consequence}"


def _lacking(folder: KernelFolder, missing: Sequence[str]) -> str:
    more = f" and {plural(len(missing) - _MAX_NAMES, 'more file')}" if len(missing) > _MAX_NAMES else ""
    return f"{folder.library} lacks {', '.join(missing[:_MAX_NAMES])}{more}, which it has for other GPUs"
