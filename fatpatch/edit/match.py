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
    """A donation and its module."""

    module: ModuleInHost
    donation: ImageToAdd


class Skipped(NamedTuple):
    """A donation without a module, and why."""

    donation: ImageToAdd
    reason: str


def match(
    modules: Sequence[ModuleInHost], donations: Sequence[ImageToAdd], pins: Sequence[str], members: Sequence[str]
) -> tuple[list[Match], list[Skipped]]:
    """Give each donation its module, one in each host file (a library for two systems is in one llamafile).

    ``pins`` are locators or patterns of the only modules to consider, ``members`` the paths of the only members.
    An image from a file goes to a file of that name where there is one, else one from a DLL to DLLs.

    EditError when the choice is ambiguous, or when there is none for an image that is a file of its own.
    """
    considered = chosen(modules, pins, members)
    several = len({*pins, *members}) > 1 or any("*" in member for member in members)  # the user named more than one file
    if pins and len(donations) == len(considered) == 1 and considered[0].vendor == donations[0].vendor:
        return [Match(considered[0], donations[0])], []
    matched: list[Match] = []
    skipped: list[Skipped] = []
    elsewhere: list[tuple[ImageToAdd, ModuleInHost]] = []
    twins = _Twins(donations, pinned=bool(pins))
    for donation in donations:
        candidates, reason = _candidates([module for module in considered if module.vendor == donation.vendor], donation)
        kin = twins.own(donation, candidates if several else _kin(candidates, donation))
        if candidates:
            matched += [Match(module, donation) for module in kin]
            elsewhere += [(donation, other) for other in candidates if other.node not in [module.node for module in kin]]
        elif not donation.donor:  # a file that the user named must be used
            foreign = all(module.vendor != donation.vendor for module in considered)
            hint = (
                "give an image of the other vendor, or another file"
                if foreign
                else "if you know better, name the module with --module LOCATOR"
            )
            raise EditError(reason, locator=donation.origin, hint=hint)
        else:
            skipped.append(Skipped(donation, reason))
    matched = one_each(matched)
    served = {(module.locator, donation.kind, donation.target) for module, donation in matched}
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
        groups.setdefault((item.module.locator, item.donation.kind, item.donation.target), []).append(item)
    result = []
    for group in groups.values():
        named = [item for item in group if file_name(item.module.node.path) == file_name(item.donation.path)]
        alike = [item for item in group if item.module.node.container == item.donation.host]
        first, *others = named or alike or group
        if others:
            both = f"{first.donation.origin} and {others[0].donation.origin}"
            message = f"two images are {first.donation.target} for one module: {both}"
            raise EditError(message, locator=first.module.locator, hint="give only one image a target and module")
        result.append(first)
    return result


def _kin(modules: list[ModuleInHost], donation: ImageToAdd) -> list[ModuleInHost]:
    """Those in a file of the donor's name; else in files of its kind; else all."""
    for rule in (
        [module for module in modules if file_name(module.node.path) == file_name(donation.path)],
        [module for module in modules if module.node.container == donation.host],
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

    def __init__(self, donations: Sequence[ImageToAdd], *, pinned: bool) -> None:
        self._all = pinned and len(donations) == 1  # the user named the modules
        self._groups: dict[tuple[object, ...], list[ImageToAdd]] = {}
        for donation in donations:
            self._groups.setdefault(self._key(donation), []).append(donation)

    def _key(self, donation: ImageToAdd) -> tuple[object, ...]:
        return donation.donor, donation.kind, donation.target, donation.signature.relocatable, frozenset(donation.signature.kernels)

    def own(self, donation: ImageToAdd, modules: Sequence[ModuleInHost]) -> list[ModuleInHost]:
        """The one module of each host file that the donation is for; EditError when that is not clear."""
        group = self._groups[self._key(donation)]
        position = next(index for index, each in enumerate(group) if each is donation)
        files: dict[str, list[ModuleInHost]] = {}
        for module in modules:
            files.setdefault(module.node.locator, []).append(module)
        if self._all:
            return list(modules)
        if any(len(fitting) not in (1, len(group)) for fitting in files.values()):
            listed = listed_names([module.locator for module in modules])
            raise EditError(f"fits {len(modules)} modules: {listed}", locator=donation.origin, hint="name one with --module LOCATOR")
        return [fitting[position if len(fitting) > 1 else 0] for fitting in files.values()]


def _candidates(modules: Sequence[ModuleInHost], donation: ImageToAdd) -> tuple[list[ModuleInHost], str]:
    """The modules that a donation fits, by the strictest rule that gives any; else why there is none."""
    names = frozenset(donation.signature.kernels)
    if not modules:
        return [], f"is for {VENDOR_WORDS[donation.vendor]} GPUs, and the file has no code for those"
    if not names:
        return [], "has no kernels, so its module is unknown"
    links = (True, False) if donation.signature.relocatable is None else (donation.signature.relocatable,)
    same_link = [module for module in modules if module.relocatable in links and module.names]
    unread = next((module for module in modules if module.names is None), None)
    if not same_link and unread is not None:
        return [], f"fits no module that can be read; {unread.locator}: {unread.problem}"
    if not same_link:
        linked, other = ("relocatable", "linked") if donation.signature.relocatable else ("linked", "relocatable")
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
