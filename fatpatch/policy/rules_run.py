"""FP3xx: the GPUs that must run the file, asked of doctor."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.gpucode.demangle import readable
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver, on_jetson_linux
from fatpatch.model.kinds import Vendor
from fatpatch.policy.kernel_files import folder_of_holder
from fatpatch.policy.rule import Rule
from fatpatch.policy.subject import Hit, RuleSubject
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.kernel_folders import folder_trouble
from fatpatch.verdicts.outcome import OUTCOMES, deciding, outcome_of, works
from fatpatch.verdicts.remedies import remedies
from fatpatch.verdicts.results import FileVerdict

_BY_OUTCOME = {
    "abort": "FP302", "may-fail": "FP302", "not-read": "FP303", "no-code": "FP304", "may-be-wrong": "FP305", "slow-start": "FP306",
    "not-promised": "FP307",
}  # fmt: skip
_SHOWN = 3
_MAKERS_WAY = ("rebuild", "an older toolkit", "graft")


def check_runs(subject: RuleSubject) -> Iterator[tuple[str, Hit]]:
    """(rule, hit) for every GPU that must run the file and does not, or not as it should."""
    for demand in subject.demands.run:
        for name in demand.gpus:
            environment = environment_for(name, demand.driver)
            if not subject.concerns(environment.device.vendor):
                continue
            if (folder := folder_of_holder(subject)) is not None:
                if folder.first and environment.device.vendor == Vendor.AMD and (words := folder_trouble(folder.folder, environment)):
                    key = f"{environment.device.target} folder"
                    yield "FP301", Hit(subject.locator, f"{name} ({environment.device.target}): {words}", "", key)
                continue
            found = _own(subject, environment)
            outcome = "no-code" if found is None else outcome_of(found)
            if outcome in demand.accept or (found is not None and works(found) and outcome != "slow-start"):
                continue
            if subject.inside.has_working_alternative(environment, subject.locator):
                continue  # a program loads one of them, and one runs
            yield _BY_OUTCOME.get(outcome, "FP301"), _hit(subject, environment, name, found, outcome)


def environment_for(name: str, version: str | None) -> Environment:
    """The circumstances of one demand; a driver is asked of NVIDIA GPUs only, and not where the board brings its own."""
    device = find(name)
    given = None if version is None or device.vendor == Vendor.AMD or (device.arch and on_jetson_linux(device.arch)) else driver(version)
    return Environment(device, given)


def _own(subject: RuleSubject, environment: Environment) -> FileVerdict | None:
    """The verdict on this holder alone; None when it has no code for the GPU's vendor."""
    if not any(payload.vendor == environment.device.vendor for payload in subject.payloads):
        return None
    return subject.inside.verdict(environment, subject.locator)


def _hit(subject: RuleSubject, environment: Environment, name: str, found: FileVerdict | None, outcome: str) -> Hit:
    driver_words = "" if environment.driver is None else f" with driver {environment.driver.version}"
    where = f"{name} ({environment.device.target}){driver_words}"
    key = f"{environment.device.target} {outcome}"
    if found is None:
        held = ", ".join(subject.targets)
        vendor = "AMD" if environment.device.vendor == Vendor.AMD else "NVIDIA"
        return Hit(subject.locator, f"{where}: no code for {vendor} GPUs; it holds {held}", "", key)
    worst = deciding(found)
    words = OUTCOMES[outcome].lower()
    if outcome == "not-read" and found.unread:
        part = found.unread[0]
        return Hit(subject.locator, f"{where}: {words}: a part could not be read: {part.locator}: {part.message}", "", key)
    if found.trouble is not None or not worst:
        detail = found.trouble[1] if found.trouble is not None else "a part of it could not be read" if found.unread else ""
        return Hit(subject.locator, f"{where}: {words}{': ' if detail else ''}{detail}", _remedy(subject, found), key)
    first = worst[0].verdict
    more = f" (and {len(worst) - 1} more module{'s' if len(worst) > 2 else ''})" if len(worst) > 1 else ""
    image = "" if first.image is None else f" [{first.image.locator}]"
    message = f"{where}: {words}: {first.reason}{image}{more}"
    if first.defects:
        names = [readable(kernel.name) for kernel in first.defects]
        rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        message += f"; {len(names)} of its kernels do not work there: {', '.join(names[:_SHOWN])}{rest}"
    return Hit(first.locator, message, _remedy(subject, found), key)


def _remedy(subject: RuleSubject, found: FileVerdict) -> str:
    """What whoever makes the file can do: a build, a graft; else the first remedy that works, or may."""
    rows = [row for row in remedies(subject.inside.doctor, found, subject.inside.shown, ()) if row.works is not False]
    rows.sort(key=lambda row: next((rank for rank, word in enumerate(_MAKERS_WAY) if row.title.startswith(word)), len(_MAKERS_WAY)))
    if not rows:
        return ""
    command = f": {rows[0].command}" if rows[0].command else ""
    return f"{rows[0].title}{command}  ({rows[0].why})"


RULES = (
    Rule(
        "FP301", "gpu-fails", "error", "a GPU that must run the file does not load all of its code",
        "For some module the driver finds no image that this GPU can load, or the one that it takes fails. `fatpatch doctor FILE --gpu X "
        "-v` shows every module and why each image is ignored.",
    ),
    Rule(
        "FP302", "stub-served", "error", "a GPU gets kernels that are traps",
        "The image that the driver loads holds the kernel in name only: its body was compiled for an older generation than the kernel "
        "supports, and traps or does nothing. The list of targets looks fine, and the program aborts.",
    ),
    Rule(
        "FP303", "cannot-tell", "error", "cannot tell whether a GPU runs the file",
        "A part of the file could not be read, or its code is elsewhere. What is not known is never called fine.",
    ),
    Rule(
        "FP304", "no-code-for-gpu", "error", "no code for the vendor of a GPU that must run the file",
        "The file holds code for another vendor's GPUs only: it is the wrong build, or the policy asks too many files (see [[files]]).",
    ),
    Rule(
        "FP305", "may-compute-wrong-numbers", "error", "host code and device code decide by different compute capabilities",
        "The host picks a way by the GPU, and the kernel was compiled for less: they may disagree on sizes or layouts, silently.",
    ),
    Rule(
        "FP306", "slow-first-start", "warning", "a GPU must compile PTX for a while at the first start",
        "There is no SASS for this GPU, so its driver compiles the PTX when the program first starts, and again when its cache "
        "is full or cannot be written. Add SASS, or accept it with `accept = [\"slow-start\"]`.",
    ),
    Rule(
        "FP307", "not-promised", "warning", "it probably runs, but that is not guaranteed",
        "NVIDIA does not guarantee that SASS runs across minor versions on Tegra parts; AMD guarantees nothing across processors.",
    ),
)  # fmt: skip
