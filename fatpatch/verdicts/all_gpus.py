"""How every GPU of the tables fares with a file: asked of doctor, target by target."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.fleet import every_target
from fatpatch.scan.coverage import payloads_below
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor, libraries
from fatpatch.verdicts.outcome import deciding, outcome_of, works
from fatpatch.verdicts.results import FileVerdict


class Answer(NamedTuple):
    """``outcome`` is a key of OUTCOMES; ``why`` says what decides it; ``driver``: the lowest one on Linux, None where it is no matter."""

    outcome: str
    works: bool
    why: str = ""
    driver: str | None = None


NOTHING = Answer("no-code", False)


def answers(doctor: Doctor) -> dict[str, dict[str, Answer]]:
    """By the locator of the holder, then by target, each with the best driver that its GPUs can have; vendors without code are left out."""
    vendors = {payload.vendor for _, payload in payloads_below(doctor.node)}
    found: dict[str, dict[str, Answer]] = {}
    doctor.read_ahead(Environment(device) for device, _ in every_target() if device.vendor in vendors)
    for device, _ in every_target():
        if device.vendor in vendors:
            for node, verdict in libraries(doctor.judge(Environment(device))):
                found.setdefault(node.locator, {})[device.target] = _answer(verdict)
    return found


def _answer(found: FileVerdict) -> Answer:
    driver = found.needs[0].linux if found.needs and found.modules else None
    return Answer(outcome_of(found), works(found), _why(found), driver)


def _why(found: FileVerdict) -> str:
    if found.trouble is not None:
        return found.trouble[1]
    modules = deciding(found)
    if not modules:
        return ""
    first = modules[0].verdict
    dead = {kernel.name for module in modules for kernel in module.verdict.defects}
    return f"{first.reason}; {len(dead)} of its kernels do not work there" if dead else first.reason
