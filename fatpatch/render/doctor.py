"""The text of ``doctor``: the verdict in the first line, in words; then why; then what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.gpus.cuda_errors import error_text
from fatpatch.gpus.drivers import on_jetson_linux
from fatpatch.render import doctor_context as context
from fatpatch.render.doctor_kernels import Shown, dead
from fatpatch.render.words import plural, safe
from fatpatch.verdicts.doctor import libraries
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judged import FileVerdict, Judged
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB
from fatpatch.verdicts.outcome import OUTCOMES, outcome_of
from fatpatch.verdicts.remedy import Remedy

_MAX_LOST = 8
_MAX_LOCATORS = 3
_WIDTH, _NARROWEST = 120, 40
_HEADINGS = ((True, "Do this"), (None, "May help"), (False, "Does not help here"))


def device_words(environment: Environment) -> str:
    """``GeForce GTX 1060 (compute capability 6.1)``."""
    device = environment.device
    if device.arch is None:
        return device.name if device.name == device.target else f"{device.name} ({device.target})"
    number = f"compute capability {device.arch // 10}.{device.arch % 10}"
    return f"a GPU of {number}" if device.name == number else f"{device.name} ({number})"


def headline(found: FileVerdict, shown: str) -> str:
    """The first line."""
    return f"{OUTCOMES[outcome_of(found)]}: {safe(shown)} on {device_words(found.environment)}{_driver_words(found)}"


def _driver_words(found: FileVerdict) -> str:
    """``driver 535.154``; without one the range that the file can do with, where it can. ROCm releases are not judged."""
    driver, arch = found.environment.driver, found.environment.device.arch
    if driver is not None:
        return f", driver {driver.version}"
    if arch is None:
        return ""
    if on_jetson_linux(arch):
        return ", with its Jetson Linux"
    return f", driver {context.driver_range(found)}" if found.needs and outcome_of(found) in context.LOADED else ", any driver"


def report(found: FileVerdict, rows: Sequence[Remedy], shown: str, show: Shown, *, verbose: bool) -> Iterator[str]:
    """All lines for one file on one device."""
    yield headline(found, shown)
    yield ""
    yield from _libraries(found)
    yield from _why(found, show, verbose=verbose)
    for section in context.SECTIONS:
        yield from section(found)
    if rows:
        yield from _remedies(rows)


def _libraries(found: FileVerdict) -> Iterator[str]:
    """Each library of an archive for itself: a program loads one of them."""
    each = libraries(found)
    if len(each) < 2:
        return
    width = max(len(safe(node.path)) for node, _ in each)
    for node, verdict in each:
        yield f"  {safe(node.path).ljust(width)}  {OUTCOMES[outcome_of(verdict)]}"
    yield ""


def _why(found: FileVerdict, show: Shown, *, verbose: bool) -> Iterator[str]:
    maker = "AMD" if found.environment.device.vendor == "amd" else "NVIDIA"
    if not found.modules and found.unread:
        yield "What could be read of the file holds no code for this GPU, but a part could not be read."
        return
    if not found.modules:
        yield f"There is no code for {maker} GPUs in this file: it could only run without the GPU."
        return
    if found.trouble is not None:
        number, words = found.trouble
        yield f"{words[0].upper()}{words[1:]}."
        yield f"The program sees error {number}: {error_text(number).text}."
        return
    for group in _groups(found.here):
        yield from _group(group, verbose=verbose)
    if found.elsewhere:
        targets = ", ".join(dict.fromkeys(image.target for module in found.elsewhere for image in module.payload.images))
        count = plural(len(found.elsewhere), "module is", "modules are")
        yield f"{count} for other generations only ({safe(targets) or 'empty now'}): a program that picks"
        yield "  modules by GPU never loads them here; one that does sees error 209."
    yield from dead(found, show, verbose=verbose)
    yield from _lost(found, verbose=verbose)


def _groups(modules: Sequence[Judged]) -> list[list[Judged]]:
    """Modules that fare alike, the worst first."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for module in modules:
        verdict = module.verdict
        key = (verdict.verdict, verdict.cuda_error, verdict.outcome, verdict.target, verdict.reason)
        groups.setdefault(key, []).append(module)
    order = [FAILS, STUB, JIT, COMPATIBLE, NATIVE, EMPTY]
    return sorted(groups.values(), key=lambda group: order.index(group[0].verdict.verdict))


def _group(group: Sequence[Judged], *, verbose: bool) -> Iterator[str]:
    verdict = group[0].verdict
    names = [safe(module.verdict.locator) for module in group]
    shown = names if verbose or len(names) <= _MAX_LOCATORS else names[:1]
    more = "" if len(shown) == len(names) else f" and {len(names) - len(shown)} more modules"
    yield _fate(group[0])
    yield f"  {', '.join(shown)}{more}"
    if verdict.cuda_error is not None and group[0].payload.vendor == "amd":
        yield f"  The program sees error {verdict.cuda_error}, hipErrorNoBinaryForGpu (newer runtimes: 200, hipErrorInvalidImage)."
    elif verdict.cuda_error is not None:
        text = error_text(verdict.cuda_error)
        yield f"  The program sees error {verdict.cuda_error}, {text.runtime_name or text.name}: {text.text}."


def _fate(module: Judged) -> str:
    verdict = module.verdict
    reason = safe(verdict.reason)
    if verdict.outcome is not None:
        return f"The driver {'crashes' if verdict.outcome == 'crash' else 'hangs'}: {reason}."
    if verdict.verdict == FAILS and verdict.cuda_error is None:
        return f"What is loaded is not known: {reason}."
    if verdict.image is None:
        return f"Nothing is loaded: {reason}."
    if verdict.verdict == FAILS and not verdict.partly:
        return f"Loading fails: {reason}."
    because = reason.removeprefix(f"{verdict.target} is ").removeprefix("compiled by the driver: ")
    if module.payload.vendor == "amd":
        return f"The runtime loads {safe(verdict.target or '')}: {because}."
    kernels = " (it has the kernels below)" if verdict.verdict == STUB else ""
    return f"The driver {'compiles' if verdict.image.kind != 'sass' else 'loads'} {verdict.target}: {because}{kernels}."


def _lost(found: FileVerdict, *, verbose: bool) -> Iterator[str]:
    """Why the other images are passed over, for the group that fares worst."""
    bad = [module for module in found.here if module.verdict.verdict in (FAILS, STUB)]
    chosen = bad or (found.modules if verbose else ())
    lines = dict.fromkeys(line for module in chosen for line in module.verdict.lost)
    if not lines:
        return
    yield ""
    yield "Why nothing else is loaded:" if any(module.verdict.image for module in chosen) else "What there is:"
    by_reason: dict[str, list[str]] = {}
    for target, why in lines:
        by_reason.setdefault(why, []).append(target)
    shown = list(by_reason.items())[: None if verbose else _MAX_LOST]
    for why, targets in shown:
        yield f"  {safe(', '.join(dict.fromkeys(targets)))}: {safe(why)}"
    if len(shown) < len(by_reason):
        yield f"  and others, for {plural(len(by_reason) - len(shown), 'more reason')} (-v shows all)"
    if found.environment.device.vendor == "nvidia" and not any(i.kind == "ptx" for module in chosen for i in module.payload.images):
        yield "  no PTX: nothing can be compiled for this GPU when the program starts"


def _remedies(rows: Sequence[Remedy]) -> Iterator[str]:
    for works, heading in _HEADINGS:
        chosen = [remedy for remedy in rows if remedy.works is works]
        if not chosen:
            continue
        yield ""
        yield heading
        width = max(len(safe(remedy.title)) for remedy in chosen)
        for remedy in chosen:
            yield from _hanging(f"  {safe(remedy.title).ljust(width)}  ", remedy.why)
            if remedy.command is not None:
                yield f"      {safe(remedy.command)}"


def _hanging(head: str, words: str) -> Iterator[str]:
    """Words behind a head, wrapped, with the later lines below the first."""
    import textwrap

    lines = textwrap.wrap(safe(words), max(_WIDTH - len(head), _NARROWEST), break_long_words=False, break_on_hyphens=False)
    for index, line in enumerate(lines or [""]):
        yield (head if index == 0 else " " * len(head)) + line
