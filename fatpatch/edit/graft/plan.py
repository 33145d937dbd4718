"""The plan of a graft: which image goes where, what is wrong with that, and the file as it would be. Nothing is written here."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.errors import EditError, FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.edit.graft.cover import gaps_left
from fatpatch.edit.graft.retag import Retag, retag_matches
from fatpatch.edit.graft.validate import Problem, problems_of
from fatpatch.edit.host.host import Options
from fatpatch.edit.host.tree import TreeEdit, edit_tree
from fatpatch.edit.match import Match, Skipped, chosen, match, one_each
from fatpatch.edit.modules import ModuleInHost, modules_of, reference_of
from fatpatch.edit.payload.bundle import new_bundle
from fatpatch.edit.payload.fatbin import new_fatbin
from fatpatch.edit.payload.hashes import renames_between
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.formats import numbers as n
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.kinds import ContainerKind, ImageKind, ModuleKind, Vendor
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Node
from fatpatch.scan.coverage import all_diagnostics, payloads_below

_REFUSALS = 3
_SINGLE = {
    ModuleKind.CODE_OBJECT: (
        "is one code object, and nothing chooses among several in it",
        "give it with --hsaco, or bundle it first",
    ),
    ModuleKind.KPACK: ("is a kernel pack, which is not edited", "graft into a library that carries its code itself"),
    ModuleKind.KPACK_REFERENCE: (
        "keeps its device code in a kernel pack, which is not edited",
        "graft into a library that carries its code itself",
    ),
}
_UNTRIED = "experimental: no AMD GPU has run a file that was edited so; try it before you rely on it"


class GraftRequest(NamedTuple):
    """What the user asked for. ``modules`` are locators or patterns, ``members`` paths inside archives.

    ``retags``: AMD code objects of the file itself to be copied under another name. ``own``: images made for a module, by its locator.
    """

    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    replace: bool = False
    rename_hash: bool = False
    force: bool = False
    codec: str | None = None
    limit: int = 128 << 20
    host: Options = Options()
    retags: tuple[Retag, ...] = ()
    own: tuple[tuple[str, ImageToAdd], ...] = ()


class Graft(NamedTuple):
    """One image and its module, checked. ``replaced`` is the image whose place it takes.

    ``kernels``, ``parameters`` and ``variables``: how many of the module's were compared.
    """

    module: ModuleInHost
    new_image: ImageToAdd
    replaced: ImageEntry | None
    forced: tuple[Problem, ...]
    kernels: int
    parameters: int
    variables: int


class GraftPlan(NamedTuple):
    """Everything that would be done; ``edit`` is None when there is nothing to do."""

    grafts: tuple[Graft, ...]
    present: tuple[Match, ...]
    skipped: tuple[Skipped, ...]
    edit: TreeEdit | None
    notes: tuple[str, ...]


def plan_graft(node: Node, new_images: Sequence[ImageToAdd], request: GraftRequest) -> GraftPlan:
    """Plan to put every new_image into its module below ``node``. EditError says why not, and what a wrong graft would do."""
    modules = modules_of(node, request.limit)
    if not modules:
        raise _no_module(node)
    matched, skipped = match(modules, new_images, request.modules, request.members) if new_images else ([], [])
    made = dict(request.own)
    matched += [Match(module, made[module.locator]) for module in modules if module.locator in made]
    cautions: list[str] = []
    for retag in dict.fromkeys(request.retags):
        there = chosen(modules, request.modules, request.members)
        copies, spared, words = retag_matches(there, retag, request.limit, replace=request.replace, force=request.force)
        matched, skipped, cautions = [*matched, *copies], [*skipped, *spared], [*cautions, *words]
    matched = one_each(matched)
    if not matched:
        reasons = "; ".join(dict.fromkeys(f"{item.new_image.origin} {item.reason}" for item in skipped[:3]))
        raise EditError(
            f"nothing to graft: {reasons}", locator=node.locator, hint="'fatpatch inspect FILE --kernels' lists the kernels of both"
        )
    grafts: list[Graft] = []
    present: list[Match] = []
    refused: list[tuple[Match, list[Problem]]] = []
    for item in matched:
        existing = _existing(item)
        if existing is not None and _same(item, existing, request.limit):
            present.append(item)
            continue
        new_image, problems, counts = _checked(item, existing, request)
        forced = [problem for problem in problems if problem.survivable and request.force]
        if len(forced) < len(problems):
            refused.append((item, problems))
            continue
        grafts.append(Graft(item.module, new_image, existing, tuple(forced), *counts))
    if refused:
        raise _refusal(refused)
    renewed = _renewed(grafts, request)
    edit = edit_tree(node, {new.payload.locator: new for new in renewed}, request.host) if renewed else None
    untried = [_UNTRIED] if any(graft.module.vendor == Vendor.AMD for graft in grafts) else []
    notes = [*(edit.notes if edit else ()), *cautions, *untried, *gaps_left(modules, [(graft.module, graft.new_image) for graft in grafts])]
    return GraftPlan(tuple(grafts), tuple(present), tuple(skipped), edit, tuple(dict.fromkeys(notes)))


def _no_module(node: Node) -> EditError:
    """Why there is nothing to graft into."""
    kinds = {payload.kind for _, payload in payloads_below(node)}
    if single := next((_SINGLE[kind] for kind in sorted(kinds) if kind in _SINGLE), None):
        return EditError(single[0], locator=node.locator, hint=single[1])
    errors = [item for item in all_diagnostics(node) if item.level != "note"]
    why = f"; {errors[0].locator}: {errors[0].message}" if errors else ""
    message = f"holds no CUDA fatbin and no AMD bundle: there is nothing to graft into{why}"
    return EditError(message, locator=node.locator, hint="'fatpatch inspect' says what was looked for")


def _existing(item: Match) -> ImageEntry | None:
    """The image of the module that has the kind and target of the new_image."""
    return next(iter(_equals(item)), None)


def _equals(item: Match) -> list[ImageEntry]:
    kind, target = item.new_image.kind, item.new_image.target
    return [image for image in item.module.payload.images if image.kind == kind and _equal_targets(kind, image.target, target)]


def _rival(item: Match) -> str | None:
    """An object for the same processor that leaves open what this one states, or states what this one leaves open."""
    mine = Target(item.new_image.target)
    for image in item.module.payload.images:
        other = Target(image.target)
        if (
            image.kind == ImageKind.HSACO
            and other.processor == mine.processor
            and dict(other.features).keys() != dict(mine.features).keys()
        ):
            return image.target
    return None


def _equal_targets(kind: str, first: str, second: str) -> bool:
    return Target(first).means(second) if kind == ImageKind.HSACO else first == second


def _same(item: Match, image: ImageEntry, limit: int) -> bool:
    try:
        data = ImageReader(item.module.node.content, limit).read(image)
    except FatpatchError:
        return False
    return data.rstrip(b"\0") == item.new_image.content().rstrip(b"\0")


def _checked(item: Match, existing: ImageEntry | None, request: GraftRequest) -> tuple[ImageToAdd, list[Problem], tuple[int, int, int]]:
    """The new_image, its ids renamed if asked for; its problems; how many kernels, parameters and variables were compared."""
    module, new_image = item
    problems = []
    if existing is not None and not request.replace:
        problems.append(Problem(
            "duplicate", f"the module has a {new_image.target} image already, a different one",
            "which of two equals a driver takes is not documented", survivable=False, hint="--replace puts this one in its place",
        ))  # fmt: skip
    if module.vendor == Vendor.AMD and (rival := _rival(item)) is not None:
        problems.append(Problem(
            "conflict", f"the module has {rival}, which states other settings than {new_image.target}",
            "LLVM's tools refuse such a bundle, and a runtime may take either", survivable=False,
            hint="compile with the same settings as the module's own objects",
        ))  # fmt: skip
    if len(_equals(item)) > 1:
        message = f"the module has {len(_equals(item))} images for {new_image.target}"
        problems.append(Problem("several", message, "which of them a driver takes is not documented", survivable=False))
    if existing is not None and existing.within is not None and module.vendor == Vendor.NVIDIA:
        message = f"the module's {new_image.target} image shares a compressed block with others"
        problems.append(Problem("packed", message, "replacing it would drop them", survivable=False))
    found = reference_of(module, new_image.target, request.limit, existing)
    if found is None and existing is not None:
        found = reference_of(module, new_image.target, request.limit)
    if found is None:
        problems.append(Problem(
            "unchecked", f"nothing to compare with: {module.problem or 'no image of the module can be read'}",
            "a wrong image crashes the host process or computes wrong numbers", survivable=False,
        ))  # fmt: skip
        return new_image, problems, (0, 0, 0)
    _, signature = found
    if request.rename_hash:
        new_image = new_image.renamed(renames_between(new_image.signature.kernels, signature.kernels))
    problems += problems_of(new_image, signature, module.relocatable)
    shared = [name for name in signature.kernels if name in new_image.signature.kernels]
    parameters = sum(len(signature.kernels[name] or ()) for name in shared)
    variables = set(signature.variables) & set(new_image.signature.variables)
    return new_image, problems, (len(shared), parameters, len(variables))


def _refusal(refused: Sequence[tuple[Match, list[Problem]]]) -> EditError:
    """One error for everything that is wrong."""
    lines, hints = [], []
    for item, problems in refused[:_REFUSALS]:
        for problem in problems[:_REFUSALS]:
            effect = f": {problem.effect}" if problem.effect else ""
            lines.append(f"{item.new_image.origin} ({item.new_image.target}): {problem.message}{effect}")
            hints.append(problem.hint)
        if len(problems) > _REFUSALS:
            lines.append(f"and {len(problems) - _REFUSALS} more problems of this image")
    if len(refused) > _REFUSALS:
        lines.append(f"and {len(refused) - _REFUSALS} more images")
    if all(problem.survivable for _, problems in refused for problem in problems):
        hints.append("--force grafts it all the same")
    hint = "; ".join(dict.fromkeys(filter(None, hints))) or "give an image that was compiled from the source of this binary"
    return EditError("\n  ".join(lines), locator=refused[0][0].module.locator, hint=hint)


def _renewed(grafts: Sequence[Graft], request: GraftRequest) -> list[NewPayload]:
    by_module: dict[str, list[Graft]] = {}
    for graft in grafts:
        by_module.setdefault(graft.module.locator, []).append(graft)
    return [_new_payload(group, request) for group in by_module.values()]


def _new_payload(group: Sequence[Graft], request: GraftRequest) -> NewPayload:
    """The payload of one module with all that it is given."""
    module = group[0].module
    new_images = [graft.new_image for graft in group]
    replaced = {index: graft.replaced for index, graft in enumerate(group) if graft.replaced is not None}
    if module.vendor == Vendor.AMD:
        if request.codec is not None:
            hint = "leave --compress out: a bundle stays packed as it is"
            raise EditError("--compress is for fatbins, and this is an AMD bundle", locator=module.locator, hint=hint)
        return new_bundle(module.node.content, module.payload, new_images, replaced, limit=request.limit)
    return new_fatbin(
        module.node.content,
        module.payload,
        new_images,
        replaced,
        codec=request.codec,
        host=n.FLAG_HOST_WINDOWS if module.node.container == ContainerKind.PE else n.FLAG_HOST_LINUX,
        relocatable=module.relocatable,
    )
