"""One word for what a user will see, and the exit code that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fatpatch.verdicts.fate import NO_IMAGE
from fatpatch.verdicts.judged import FileVerdict, Judged
from fatpatch.verdicts.module import EMPTY, FAILS, JIT, STUB, not_promised
from fatpatch.verdicts.requirements import beyond_jetson

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
    "not-read": "CANNOT TELL",
    "slow-start": "WILL RUN, AFTER A SLOW FIRST START",
    "not-promised": "WILL PROBABLY RUN",
    "runs": "WILL RUN",
}
HOPELESS: Final = frozenset({"no-code", "will-not-run", "crash", "hang", "fails-in-part", "abort", "no-road"})
"""The outcomes in which the file surely does not run."""

_WORKS: Final = frozenset({"runs", "slow-start"})
_SLOW: Final = 2.0


def outcome_of(found: FileVerdict) -> str:
    """A key of OUTCOMES."""
    modules = [module.verdict for module in found.here]
    if not modules:
        return "not-read" if found.unread else "no-code"
    if found.trouble is not None:
        return "will-not-run"
    bad = [verdict for verdict in modules if verdict.verdict == FAILS]
    for word in ("crash", "hang"):
        if any(verdict.outcome == word for verdict in bad):
            return word
    if bad and all(verdict.cuda_error is None for verdict in bad):
        return "not-read"
    if bad:
        useful = [verdict for verdict in modules if verdict.verdict != EMPTY]
        if len(bad) == len(useful) and not any(verdict.partly for verdict in bad):
            return "will-not-run"
        few = 2 * len(bad) < len(useful) and all(verdict.cuda_error == NO_IMAGE for verdict in bad)  # which of them are used is not known
        return "may-fail-in-part" if few else "fails-in-part"
    if found.verdict == STUB and _certain(found):
        return "abort"
    if found.no_road:
        return "no-road"
    return "may-fail" if found.verdict == STUB else _good(found)


def _good(found: FileVerdict) -> str:
    """When everything loads."""
    if found.unread:
        return "not-read"
    if found.unheld:
        return "may-fail-in-part"
    if found.mismatch:
        return "may-be-wrong"
    if (trust := _trust(found)) is not None:
        return trust
    if any(not_promised(module.verdict, found.environment) for module in found.modules) or beyond_jetson(found.modules, found.environment):
        return "not-promised"
    slow = found.cost is not None and found.cost.seconds >= _SLOW and found.verdict == JIT
    return "slow-start" if slow else "runs"


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
