"""Relocatable device code: modules that the runtime links, and what a missing image means for them (reference: graft, RDC; measured).

A file made with -rdc holds the relocatable modules (section __nv_relfatbin) and the image that was linked of them. Where the linked
one has nothing for a GPU, the runtime links the others when it loads them; where these lack it too, CUDA returns error 500.
"""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.model.tree import Payload
from fatpatch.verdicts.load_result import INVALID_IMAGE, NO_IMAGE, NOT_FOUND
from fatpatch.verdicts.module import FAILS, SEVERITY, ModuleVerdict

_SECTIONS = ("__nv_rel",)
_LINKED_WRAPPER = 2
_LINKED_AWAY = (NO_IMAGE, INVALID_IMAGE, NOT_FOUND)


def linked(modules: Sequence[tuple[Payload, ModuleVerdict]]) -> list[ModuleVerdict]:
    """The verdicts of one file's modules, with those that belong together judged together."""
    parts = [index for index, (payload, _) in enumerate(modules) if is_relocatable(payload)]
    whole = [index for index, (payload, _) in enumerate(modules) if is_linked(payload)]
    verdicts = [verdict if whole else _alone(verdict) for _, verdict in modules]
    if not parts:
        return verdicts
    lacking = {index for index in (*parts, *whole) if verdicts[index].cuda_error == NO_IMAGE and not verdicts[index].vacant}
    ready = [verdicts[index] for index in whole if index not in lacking and verdicts[index].kernels]
    if ready:
        for index in parts:
            reason = f"it was linked into {ready[0].locator}, whose code is what runs"
            own = verdicts[index]
            failed = own.cuda_error in _LINKED_AWAY
            verdicts[index] = _in_place_of(own, ready[0], reason) if failed else own._replace(kernels=(), unlinked=(), cost=None)
    elif failing := [verdicts[index] for index in whole if index not in lacking and verdicts[index].verdict == FAILS]:
        for index in parts:
            verdicts[index] = _in_place_of(verdicts[index], failing[0], f"it was linked into {failing[0].locator}: {failing[0].reason}")
    elif lacking.isdisjoint(parts):
        worst = max((verdicts[index] for index in parts), key=lambda verdict: SEVERITY.index(verdict.verdict))
        reason = f"it has no image, so the runtime links the {len(parts)} relocatable modules when it loads them"
        reason += f": {worst.reason}" if worst.verdict == FAILS else ""
        for index in lacking:
            verdicts[index] = _in_place_of(verdicts[index], worst, reason)
    else:
        for index in sorted(lacking):
            reason = f"{verdicts[index].reason}; in relocatable code the runtime reports that as error {NOT_FOUND}"
            verdicts[index] = verdicts[index]._replace(verdict=FAILS, cuda_error=NOT_FOUND, reason=reason)
    return verdicts


def _in_place_of(verdict: ModuleVerdict, other: ModuleVerdict, reason: str) -> ModuleVerdict:
    """The module fares as another does, which holds its kernels."""
    return other._replace(
        locator=verdict.locator,
        offset=verdict.offset,
        size=verdict.size,
        lost=verdict.lost,
        kernels=(),
        unlinked=(),
        cost=None,
        reason=reason,
    )


def _alone(verdict: ModuleVerdict) -> ModuleVerdict:
    """A module that nothing links: its kernels that refer to what is not in place fail at their first use."""
    codes = dict(verdict.unlinked)
    if not codes:
        return verdict
    kernels = tuple(
        kernel._replace(verdict=FAILS, defect=True, note=f"error {codes[kernel.name]} at first use: relocatable code that nothing links")
        if kernel.name in codes
        else kernel
        for kernel in verdict.kernels
    )
    return verdict._replace(kernels=kernels)


def is_linked(payload: Payload) -> bool:
    """Whether a module is what relocatable ones were linked into."""
    return payload.wrapper is not None and payload.wrapper.version == _LINKED_WRAPPER


def is_relocatable(payload: Payload) -> bool:
    """Whether a module is relocatable code that the runtime links."""
    return payload.section is not None and payload.section.startswith(_SECTIONS)
