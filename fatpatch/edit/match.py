"""Which image goes into which module: by the set of kernels, exactly, then without build-folder ids, then as a superset."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.locator import escape, file_name
from fatpatch.base.records import NamedTuple
from fatpatch.edit.modules import ModuleInHost
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.gpucode.signature import without_hashes
from fatpatch.model.kinds import VENDOR_WORDS
from fatpatch.scan.pins import listed_names, named_locators


class Match(NamedTuple):
    """A new_image and its module."""

    module: ModuleInHost
    new_image: ImageToAdd


class Skipped(NamedTuple):
    """A new_image without a module, and why."""

    new_image: ImageToAdd
    reason: str


def match(
    modules: Sequence[ModuleInHost], new_images: Sequence[ImageToAdd], pins: Sequence[str], members: Sequence[str]
) -> tuple[list[Match], list[Skipped]]:
    """Give each new_image its module, one in each host file (a library for two systems is in one llamafile).

    ``pins`` are locators or patterns of the only modules to consider, ``members`` the paths of the only members.
    An image from a file goes to a file of that name where there is one, else one from a DLL to DLLs.

    EditError when the choice is ambiguous, or when there is none for an image that is a file of its own.
    """
    considered = chosen(modules, pins, members)
    several = len({*pins, *members}) > 1 or any("*" in member for member in members)  # the user named more than one file
    if pins and len(new_images) == len(considered) == 1 and considered[0].vendor == new_images[0].vendor:
        return [Match(considered[0], new_images[0])], []
    matched: list[Match] = []
    skipped: list[Skipped] = []
    elsewhere: list[tuple[ImageToAdd, ModuleInHost]] = []
    twins = _Twins(new_images, pinned=bool(pins))
    for new_image in new_images:
        candidates, reason = _candidates([module for module in considered if module.vendor == new_image.vendor], new_image)
        kin = twins.own(new_image, candidates if several else _kin(candidates, new_image))
        if candidates:
            matched += [Match(module, new_image) for module in kin]
            elsewhere += [(new_image, other) for other in candidates if other.node not in [module.node for module in kin]]
        elif not new_image.donor:  # a file that the user named must be used
            foreign = all(module.vendor != new_image.vendor for module in considered)
            hint = (
                "give an image of the other vendor, or another file"
                if foreign
                else "if you know better, name the module with --module LOCATOR"
            )
            raise EditError(reason, locator=new_image.origin, hint=hint)
        else:
            skipped.append(Skipped(new_image, reason))
    matched = one_each(matched)
    served = {(module.locator, new_image.kind, new_image.target) for module, new_image in matched}
    skipped += [
        Skipped(given, _elsewhere(other))
        for given, other in elsewhere
        if (other.locator, given.kind, given.target) not in served and not other.has(given.target)
    ]
    return matched, skipped


def chosen(modules: Sequence[ModuleInHost], pins: Sequence[str], members: Sequence[str]) -> list[ModuleInHost]:
    """The modules that the user limits the graft to; EditError, with what there is, when none is left."""
    left = set(named_locators([module.locator for module in modules], pins, members))
    return [module for module in modules if module.locator in left]


def one_each(matched: list[Match]) -> list[Match]:
    """One image a module, kind and target: of several that of the file of the same name, else that of a file of the same kind.

    EditError when nothing tells which is meant.
    """
    groups: dict[tuple[str, str, str], list[Match]] = {}
    for item in matched:
        groups.setdefault((item.module.locator, item.new_image.kind, item.new_image.target), []).append(item)
    result = []
    for group in groups.values():
        named = [item for item in group if file_name(item.module.node.path) == file_name(item.new_image.path)]
        alike = [item for item in group if item.module.node.container == item.new_image.host]
        first, *others = named or alike or group
        if others:
            both = f"{first.new_image.origin} and {others[0].new_image.origin}"
            message = f"two images are {first.new_image.target} for one module: {both}"
            raise EditError(message, locator=first.module.locator, hint="give only one image a target and module")
        result.append(first)
    return result


def _kin(modules: list[ModuleInHost], new_image: ImageToAdd) -> list[ModuleInHost]:
    """Those in a file of the donor's name; else in files of its kind; else all."""
    for rule in (
        [module for module in modules if file_name(module.node.path) == file_name(new_image.path)],
        [module for module in modules if module.node.container == new_image.host],
    ):
        if rule:
            return rule
    return modules


def _elsewhere(module: ModuleInHost) -> str:
    """What to say of a module in another file than the one chosen, such as the .so beside the DLL."""
    option = "use --member '*' for all members" if "!" in module.node.locator else f"add --module '{module.locator}'"
    return f"fits {module.locator} too, in another file; to graft it there, {option}"


class _Twins:
    """Images of one donor with equal kernel sets, which fit equally many modules: they are paired in order.

    Kernels whose whole mangled names are equal are instances of the same templates; those of a source file's own carry its id.
    """

    def __init__(self, new_images: Sequence[ImageToAdd], *, pinned: bool) -> None:
        self._all = pinned and len(new_images) == 1  # the user named the modules
        self._groups: dict[tuple[object, ...], list[ImageToAdd]] = {}
        for new_image in new_images:
            self._groups.setdefault(self._key(new_image), []).append(new_image)

    def _key(self, new_image: ImageToAdd) -> tuple[object, ...]:
        return new_image.donor, new_image.kind, new_image.target, new_image.signature.relocatable, frozenset(new_image.signature.kernels)

    def own(self, new_image: ImageToAdd, modules: Sequence[ModuleInHost]) -> list[ModuleInHost]:
        """The one module of each host file that the new_image is for; EditError when that is not clear."""
        group = self._groups[self._key(new_image)]
        position = next(index for index, each in enumerate(group) if each is new_image)
        files: dict[str, list[ModuleInHost]] = {}
        for module in modules:
            files.setdefault(module.node.locator, []).append(module)
        if self._all:
            return list(modules)
        if any(len(fitting) not in (1, len(group)) for fitting in files.values()):
            listed = listed_names([module.locator for module in modules])
            raise EditError(f"fits {len(modules)} modules: {listed}", locator=new_image.origin, hint="name one with --module LOCATOR")
        return [fitting[position if len(fitting) > 1 else 0] for fitting in files.values()]


def _candidates(modules: Sequence[ModuleInHost], new_image: ImageToAdd) -> tuple[list[ModuleInHost], str]:
    """The modules that a new_image fits, by the strictest rule that gives any; else why there is none."""
    names = frozenset(new_image.signature.kernels)
    if not modules:
        return [], f"is for {VENDOR_WORDS[new_image.vendor]} GPUs, and the file has no code for those"
    if not names:
        return [], "has no kernels, so its module is unknown"
    links = (True, False) if new_image.signature.relocatable is None else (new_image.signature.relocatable,)
    same_link = [module for module in modules if module.relocatable in links and module.names]
    unread = next((module for module in modules if module.names is None), None)
    if not same_link and unread is not None:
        return [], f"fits no module that can be read; {unread.locator}: {unread.problem}"
    if not same_link:
        linked, other = ("relocatable", "linked") if new_image.signature.relocatable else ("linked", "relocatable")
        return (
            [],
            f"is {linked}, and the file has only {other} modules with kernels: the driver cannot use one for the other (error 200 or 500)",
        )
    forms = frozenset(map(without_hashes, names))
    for rule in (
        [module for module in same_link if module.names == names],
        [module for module in same_link if module.forms == forms],
        [module for module in same_link if module.forms < forms],
    ):
        if rule:
            return rule, ""
    nearest = max(same_link, key=lambda module: len(module.forms & forms))
    lacking = [escape(name) for name in sorted(nearest.forms - forms)]
    shared = len(nearest.forms & forms)
    return [], (
        f"fits no module: the nearest, {nearest.locator}, shares {shared} of its {len(nearest.forms)} kernels"
        + (f" and would lose {listed_names(lacking)}: launching those fails (error 500), never a fallback" if shared else "")
    )
