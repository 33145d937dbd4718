"""Whether each GPU that is kept loads the same as before, module by module: doctor's own load rules over the old and the new bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.errors import FatpatchError
from fatpatch.edit.rewrite.select_images import unloaded
from fatpatch.edit.transaction.comparison import TreeComparison
from fatpatch.gpucode.fatbin.driver_view import driver_view
from fatpatch.gpus.amd import choose_object, offered
from fatpatch.gpus.devices import Device
from fatpatch.model.kinds import ModuleKind
from fatpatch.model.tree import Node, Payload
from fatpatch.slimming.request import SlimRequest
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader
from fatpatch.verdicts.loading import load
from fatpatch.verdicts.module import is_empty


def same_load_checks(both: TreeComparison, request: SlimRequest) -> list[CheckResult]:
    """One check a GPU. Payloads that did not change are byte-identical, which another check holds."""
    return [
        check_of(f"{device.name} loads the same, module by module", _problems(both, device, request))
        for device in dict.fromkeys(request.devices)
    ]


def modules_without_kernels(node: Node, request: SlimRequest) -> Iterator[str]:
    """Locators of modules of which no GPU loads anything and that no kernel is in: nothing is missing there, nor would be gained."""
    reader = FactsReader(request.limit, node.size)
    for holder, payload in unloaded(node, request.devices) if request.devices else ():
        if payload.kind == ModuleKind.FATBIN and holder.source is not None:
            with suppress(FatpatchError):
                if is_empty(holder.source, payload, reader):
                    yield payload.locator


def _problems(both: TreeComparison, device: Device, request: SlimRequest) -> Iterator[str]:
    environment = Environment(device, request.driver)
    for pair in both.pairs.values():
        for payload in pair.old.payloads:
            found = pair.counterpart(payload)
            if found is None or payload.vendor != device.vendor or _unchanged(payload, found):
                continue
            before = _answer(pair.old, payload, environment, request.limit)
            after = _answer(pair.new, found, environment, request.limit)
            if before != after:
                yield f"{payload.locator}: {_words(before)} before, {_words(after)} now"


def _unchanged(old: Payload, new: Payload) -> bool:
    return old.size == new.size and len(old.images) == len(new.images) and old.fillers == new.fillers


Answer = tuple[str | None, int | None, str | None]
"""The target that is loaded, the error, and what becomes of the process otherwise."""


def _answer(node: Node, payload: Payload, environment: Environment, limit: int) -> Answer:
    device = environment.device
    if device.arch is None:
        image = choose_object(offered(payload.images), device.target).image
        return (None if image is None else image.target), None, None
    view = driver_view(node.content, payload.offset, payload.locator) if payload.kind == ModuleKind.FATBIN else None
    loading = load(node.content, payload, environment, limit, view)
    loads = loading.image is not None and loading.result.good
    return (loading.image.target if loading.image is not None and loads else None), loading.result.error, loading.result.outcome


def _words(answer: Answer) -> str:
    target, error, outcome = answer
    return outcome or (f"error {error}" if error else target or "nothing")
