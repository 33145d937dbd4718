"""The model that a program is to run: its tensor types, which of them it cannot run, and which break on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fatpatch.model.tree import ModelFacts, Node
from fatpatch.scan.coverage import members_below
from fatpatch.verdicts import quants
from fatpatch.verdicts.dispatch import HostChecks
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.module import FAILS
from fatpatch.verdicts.results import Judged, QuantVerdict

_GENERAL: Final = ("F16", "F32")  # types that every program runs, by its general kernels

_MAX_TYPES: Final = 64


def model_inside(node: Node) -> tuple[ModelFacts | None, str | None]:
    """The one GGUF model in an archive."""
    models = [member for member in members_below(node) if member.facts is not None]
    return (models[0].facts, models[0].path) if len(models) == 1 else (node.facts, None if node.facts is None else node.path)


def types_of(model: ModelFacts) -> list[str]:
    """The names of the tensor types that the model is made of, in its order."""
    return [name for name, _ in model.tensor_types]


def quantised(model: ModelFacts | None) -> list[str]:
    """Those of its tensor types that need kernels of their own."""
    return [] if model is None else [name for name in types_of(model) if name not in quants.PLAIN_TYPES]


def unsupported_types(modules: Sequence[Judged], model: ModelFacts | None, environment: Environment) -> Iterator[tuple[str, str]]:
    """The tensor types of the model that no library of the file can run."""
    arch = environment.device.arch
    hosts: dict[int, tuple[HostChecks, list[str]]] = {}
    for module in modules:
        if module.host.family is not None:
            names = hosts.setdefault(id(module.host), (module.host, []))[1]
            names += [kernel.name for kernel in module.verdict.kernels]
    if arch is None or model is None or not hosts:
        return
    programs = [(host, host.family.era, quants.roads_of(names)) for host, names in hosts.values() if host.family is not None]
    for quant in types_of(model)[:_MAX_TYPES]:
        reasons = [quants.why_unsupported(roads, quant, host.decides_by(arch), era) for host, era, roads in programs]
        if all(reasons) and reasons[0] is not None:
            yield quant, reasons[0]


def quant_verdicts(modules: Sequence[Judged], environment: Environment) -> list[QuantVerdict]:
    """For every tensor type that the program has kernels for: what breaks."""
    arch = environment.device.arch
    result: dict[str, set[str]] = {}
    for module in modules:
        family = module.host.family
        if family is None or family.uses_arch_list or arch is None:
            continue
        names = [kernel.name for kernel in module.verdict.kernels]
        dead = {kernel.name for kernel in module.verdict.kernels if kernel.broken}
        failed = module.verdict.verdict == FAILS
        known = quants.quants_in(names)
        for quant in (*_GENERAL, *known) if known else ():
            taken = quants.launched(names, frozenset({quant}), module.host.decides_by(arch), family.era)
            result.setdefault(quant, set()).update(name for name in taken if failed or name in dead)
    return [QuantVerdict(quant, tuple(sorted(found))) for quant, found in result.items()]


def merged(verdicts: Iterable[QuantVerdict]) -> tuple[QuantVerdict, ...]:
    """One verdict a type, of those of several libraries: a type is broken where one of them cannot run it."""
    result: dict[str, set[str]] = {}
    for each in verdicts:
        result.setdefault(each.quant, set()).update(each.broken)
    return tuple(QuantVerdict(quant, tuple(sorted(broken))) for quant, broken in result.items())
