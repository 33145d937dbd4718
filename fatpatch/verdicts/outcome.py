"""One word for what a user will see, and the exit code that follows from it."""

from __future__ import annotations

from typing import Final

from fatpatch.verdicts.doctor import FileVerdict
from fatpatch.verdicts.module import EMPTY, FAILS, JIT, STUB, not_promised

OUTCOMES: Final = {
    "no-code": "NO CODE FOR THIS GPU",
    "will-not-run": "WILL NOT RUN",
    "crash": "WILL CRASH",
    "hang": "WILL HANG",
    "fails-in-part": "WILL FAIL IN PART",
    "abort": "WILL ABORT",
    "may-fail": "MAY FAIL",
    "may-be-wrong": "MAY BE WRONG",
    "not-read": "CANNOT TELL",
    "slow-start": "WILL RUN, AFTER A SLOW FIRST START",
    "not-promised": "WILL PROBABLY RUN",
    "runs": "WILL RUN",
}
_WORKS: Final = frozenset({"runs", "slow-start"})
_SLOW: Final = 2.0


def outcome_of(found: FileVerdict) -> str:
    """A key of OUTCOMES."""
    modules = [module.verdict for module in found.modules]
    if not modules:
        return "no-code"
    if found.trouble is not None:
        return "will-not-run"
    bad = [verdict for verdict in modules if verdict.verdict == FAILS]
    for word in ("crash", "hang"):
        if any(verdict.outcome == word for verdict in bad):
            return word
    if bad:
        useful = [verdict for verdict in modules if verdict.verdict != EMPTY]
        return "will-not-run" if len(bad) == len(useful) else "fails-in-part"
    if found.verdict == STUB:
        return "abort" if _certain(found) else "may-fail"
    if found.unread:
        return "not-read"
    if found.mismatch:
        return "may-be-wrong"
    if any(not_promised(verdict, found.environment) for verdict in modules):
        return "not-promised"
    if found.verdict == JIT and found.cost is not None and found.cost.seconds >= _SLOW:
        return "slow-start"
    return "runs"


def works(found: FileVerdict) -> bool:
    """Whether nothing stands against running the file: the only case that is exit code 0."""
    return outcome_of(found) in _WORKS


def _certain(found: FileVerdict) -> bool:
    """Whether the host is known to launch a dead kernel here: for the model, or for every model of some tensor type."""
    defects = {kernel.name for module in found.modules for kernel in module.verdict.defects}
    if found.model_quants:
        return bool(defects) and any(module.host.family is not None for module in found.modules)
    return any(quant.broken for quant in found.quants) and all(quant.broken for quant in found.quants)
