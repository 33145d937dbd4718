"""Images taken out of a file: those that no target or GPU that is to be kept has a use for."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.errors import EditError, FatpatchError, ReferencedError
from fatpatch.base.records import NamedTuple
from fatpatch.edit.host.host import Options
from fatpatch.edit.rewrite.remove_images import KINDS, thinned
from fatpatch.edit.rewrite.rewrite_modules import Change, RewritePlan, planned
from fatpatch.edit.rewrite.select_images import ImageSelection, KeepRequest, chosen
from fatpatch.model.tree import Node, Payload
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned


class PruneRequest(NamedTuple):
    """What to keep, in which modules (locators or patterns) and archive members, and how.

    ``fill``: every fatbin keeps its place and size. ``spared``: locators of modules that stay as they are.
    """

    keep: KeepRequest
    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    force: bool = False
    host: Options = Options()
    limit: int = 128 << 20
    fill: bool = False
    spared: frozenset[str] = frozenset()


def plan_prune(node: Node, request: PruneRequest) -> RewritePlan:
    """Plan to take out what the request does not keep. EditError says why not: above all, whom it would break.

    Where code refers to payloads and the file need not shrink, they keep their size, and nothing moves: filler takes the place of images.
    """
    modules, changes, notes, choice = pruned(node, request)
    try:
        return planned(node, modules, changes, request.host, notes, choice.lost)
    except ReferencedError as error:
        if request.fill or request.host.compact:
            raise
        modules, changes, notes, choice = pruned(node, request._replace(fill=True))
        notes.append(f"all fatbins keep their places: {error.message}")
        return planned(node, modules, changes, request.host, notes, choice.lost)


def pruned(node: Node, request: PruneRequest) -> tuple[Sequence[tuple[Node, Payload]], list[Change], list[str], ImageSelection]:
    """(the modules that were looked at, those that change, notes, what was chosen). EditError as of ``plan_prune``."""
    everything = [(holder, payload) for holder, payload in payloads_below(node) if payload.kind in KINDS]
    if not everything:
        raise EditError("holds no fatbin and no bundle: there is nothing to remove", locator=node.locator)
    modules = pinned(everything, request.modules, request.members)
    choice = chosen(everything, request.keep, modules, force=request.force)
    changes, notes = list[Change](), list(choice.notes)
    for holder, payload in modules:
        gone = None if payload.locator in request.spared else choice.dropped.get(payload.locator)
        if gone is None:
            continue
        try:
            change = thinned(holder, payload, gone, request.limit, fill=request.fill)
        except FatpatchError as error:
            notes.append(f"{error.locator or payload.locator} is left as it is: {error.message}")
            continue
        if change is None or len(change.dropped) < len(gone):
            notes.append(f"{payload.locator}: images in one compressed block with others that stay are kept; 'fatpatch expand' parts them")
        if change is not None:
            changes.append(change)
    return modules, changes, notes, choice
