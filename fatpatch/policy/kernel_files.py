"""Files of kernel libraries in a check: each is for one GPU, so a demand is held against their folder, once."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.policy.subject import RuleSubject
from fatpatch.scan.coverage import members_below
from fatpatch.scan.kernel_folders import KernelFolder, folder_of, is_kernel_file, kernel_folders


class FolderOfHolder(NamedTuple):
    """The folder that a holder lies in; ``first``: whether it is the one that speaks for the folder."""

    folder: KernelFolder
    first: bool


def folder_of_holder(subject: RuleSubject) -> FolderOfHolder | None:
    """The folder of kernel libraries that a holder belongs to; None for any other, and for a file that was named itself."""
    node, root = subject.node, subject.inside.root
    if not is_kernel_file(node.path):
        return None
    if node.locator != root.locator:
        holders = (each for each in (*members_below(root), root) if node.path in each.kernel_files)
        return _found(next((each.kernel_files for each in holders), ()), node.path, folder_of(node.path), "")
    if subject.meant:
        return None
    place = folder_of(node.path)
    return _found(root.kernel_files, node.path[len(place) + 1 :] if place else node.path, "", place)


def _found(files: tuple[str, ...], name: str, place: str, root: str) -> FolderOfHolder | None:
    folder = next((each for each in kernel_folders(files, root) if each.folder == place), None)
    if folder is None:
        return None
    return FolderOfHolder(folder, name == folder.first)
