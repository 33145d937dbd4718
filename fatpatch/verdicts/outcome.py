"""One word for what a user will see, and the exit code that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from fatpatch.verdicts.aside import is_chosen_by_host, is_for_others, is_next_to_nothing, lacks
from fatpatch.verdicts.load_result import NO_IMAGE
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB, ModuleVerdict, not_promised
from fatpatch.verdicts.requirements import beyond_jetson
from fatpatch.verdicts.results import FileVerdict, Judged

OUTCOMES: Final = {
    "no-code": "NO CODE FOR THIS GPU",
    "will-not-run": "WILL NOT RUN",
    "crash": "WILL CRASH",
    "hang": "WILL HANG",
    "fails-in-part": "WILL FAIL IN PART",
    "may-fail-in-part": "MAY FAIL IN PART",
    "abort": "WILL ABORT",
    "no-road": "WILL NOT RUN THIS MODEL",
    "may-fail": "MAY FAIL",
    "may-be-wrong": "MAY BE WRONG",
    "runs-in-part": "WILL RUN IN PART",
    "not-read": "CANNOT TELL",
    "slow-start": "WILL RUN, AFTER A SLOW FIRST START",
    "not-promised": "WILL PROBABLY RUN",
    "runs": "WILL RUN",
}
HOPELESS: Final = frozenset({"no-code", "will-not-run", "crash", "hang", "fails-in-part", "abort", "no-road"})
"""The outcomes in which the file surely does not run."""

_WORKS: Final = frozenset({"runs", "slow-start"})
_SLOW: Final = 2.0
_STALL: Final = 0.2
"""Seconds: a module that takes less is compiled unnoticed when a program first uses it."""


def outcome_of(found: FileVerdict) -> str:
    """A key of OUTCOMES."""
    if found.libraries:
        return found.outcome
    modules = [module.verdict for module in found.here]
    if not modules:
        return "not-read" if found.unread or found.modules else "no-code"
    if found.trouble is not None:
        return "will-not-run"
    bad = [verdict for verdict in modules if verdict.verdict == FAILS]
    for word in ("crash", "hang"):
        if any(verdict.outcome == word for verdict in bad):
            return word
    if bad:
        return _bad(found, bad)
    if found.verdict == STUB and _certain(found):
        return "abort"
    if found.unsupported_types:
        return "no-road"
    return "may-fail" if found.verdict == STUB else _good(found)


def _bad(found: FileVerdict, bad: Sequence[ModuleVerdict]) -> str:
    """Of one library some of whose modules fail."""
    if all(verdict.cuda_error is None for verdict in bad):
        return "not-read"
    useful = [module.verdict for module in found.here if module.verdict.verdict != EMPTY]
    if len(bad) == len(useful) and is_chosen_by_host(found.here):
        return "not-read"
    if len(bad) == len(useful) and not any(verdict.partly for verdict in bad):
        return "will-not-run"
    lacking = sum(map(lacks, found.here))
    if lacking == len(bad) and is_next_to_nothing(len(useful) - len(bad), lacking):
        return "will-not-run"
    few = 2 * len(bad) < len(useful) and all(verdict.cuda_error == NO_IMAGE for verdict in bad)  # which of them are used is not known
    return "may-fail-in-part" if few else "fails-in-part"


def decided(found: FileVerdict) -> FileVerdict:
    """The verdict on several libraries with those by which it is judged, and what comes of them: all of them run, or none, or some.

    Of alternatives the best counts, or the one that the program's CUDA release picks. A library that has code for other generations
    alone, all of it for the very GPUs that it names, counts only where nothing else runs; one that the package does not need never does.
    """
    outcomes = {id(unit): outcome_of(unit) for unit in found.libraries}
    spared = frozenset(map(id, found.unneeded))
    counted = [unit for unit in _counted(found, outcomes) if id(unit) not in spared]
    outcome = _of_libraries([outcomes[id(unit)] for unit in counted])
    return found._replace(counted=tuple(counted), outcome="runs" if spared and not counted else outcome)


def _of_libraries(counted: Sequence[str]) -> str:
    if not counted:
        return "no-code"
    if not (bad := [each for each in counted if each in HOPELESS]):
        return min(counted, key=_ORDER.index)
    if len(bad) == len(counted):
        return bad[0] if len(set(bad)) == 1 else "will-not-run"
    return "runs-in-part"


def _counted(found: FileVerdict, outcomes: Mapping[int, str]) -> list[FileVerdict]:
    """The libraries by which a file is judged: one of each group of alternatives, and none that is made for other GPUs on purpose."""
    chosen = []
    grouped: set[int] = set()
    for group in found.alternatives:
        grouped.update(map(id, group))
        picked = next((unit for unit in group if any(unit is each for each in found.chosen)), None)
        chosen.append(picked or best_of(group, outcomes))
    units = [unit for unit in found.libraries if id(unit) not in grouped] + chosen
    units = [unit for unit in units if any(module.verdict.verdict != EMPTY for module in unit.here) or unit.trouble is not None]
    others = [unit for unit in units if not _for_others(unit)]
    return others if any(outcomes[id(unit)] not in HOPELESS for unit in others) else units


def best_of(group: Sequence[FileVerdict], outcomes: Mapping[int, str] | None = None) -> FileVerdict:
    """The library of several that runs best. ``outcomes``: theirs by id, where they are known."""
    return max(group, key=lambda unit: _ORDER.index(outcome_of(unit) if outcomes is None else outcomes[id(unit)]))


def _for_others(found: FileVerdict) -> bool:
    """Whether nothing shows that a library is meant for the device."""
    return bool(found.here) and all(map(is_for_others, found.here))


_ORDER: Final = tuple(OUTCOMES)


def _good(found: FileVerdict) -> str:
    """When everything loads."""
    if found.unread:
        return "not-read"
    if found.missing_kernels or found.incomplete:
        return "may-fail-in-part"
    if found.mismatch:
        return "may-be-wrong"
    if (trust := _trust(found)) is not None:
        return trust
    unsure = [module for module in found.here if module.verdict.verdict != EMPTY and not_promised(module.verdict, found.environment)]
    if unsure or beyond_jetson(found.modules, found.environment):
        return "not-promised"
    return "slow-start" if found.verdict == JIT and _is_slow(found) else "runs"


def _is_slow(found: FileVerdict) -> bool:
    """Whether a first start takes long: the driver compiles most of the library, and a module of it for a while."""
    stall = None if found.slowest is None else found.slowest.verdict.cost
    slow = found.cost is not None and found.cost.seconds >= _SLOW and stall is not None and stall.seconds >= _STALL
    return slow and _is_mostly_compiled(found)


def _is_mostly_compiled(found: FileVerdict) -> bool:
    """Whether most of a library is PTX here, by its modules or by their kernels: a few are compiled when a program first uses them."""
    compiled = [module.verdict for module in found.here if module.verdict.verdict == JIT]
    ready = [module.verdict for module in found.here if module.verdict.verdict in (NATIVE, COMPATIBLE)]
    return len(compiled) >= len(ready) or sum(len(each.kernels) for each in compiled) >= sum(len(each.kernels) for each in ready)


def _trust(found: FileVerdict) -> str | None:
    """What an overridden AMD GPU makes of code for another processor; None when it has the same instructions."""
    if not found.environment.pretends:
        return None
    advice = found.environment.override
    return "may-fail" if advice is None else None if advice.safe else "not-promised"


def works(found: FileVerdict) -> bool:
    """Whether nothing stands against running the file: the only case that is exit code 0."""
    return outcome_of(found) in _WORKS


def deciding(found: FileVerdict) -> Sequence[Judged]:
    """The modules that decide the verdict."""
    bad = [module for module in found.here if module.verdict.verdict in (FAILS, STUB)]
    return bad or found.mismatch or [module for module in found.here if module.verdict.verdict == found.verdict]


def _certain(found: FileVerdict) -> bool:
    """Whether the host is known to launch a dead kernel here: for the model, or for every model of some tensor type."""
    if found.model_quants:
        return any(module.for_model and module.verdict.defects for module in found.modules)
    return any(quant.broken for quant in found.quants) and all(quant.broken for quant in found.quants)
