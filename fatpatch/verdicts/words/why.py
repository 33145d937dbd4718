"""Why a library does not run: its modules in groups, and how each fares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fatpatch.base.layout import WIDTH, middle, wrapped
from fatpatch.base.locator import SEPARATOR
from fatpatch.base.words import plural, safe
from fatpatch.gpus.cuda_errors import error_text
from fatpatch.model.kinds import ImageKind, Vendor
from fatpatch.model.target import target_key
from fatpatch.verdicts.aside import is_chosen_by_host
from fatpatch.verdicts.load_result import NO_IMAGE
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB
from fatpatch.verdicts.outcome import HOPELESS, deciding, outcome_of, works
from fatpatch.verdicts.results import FileVerdict, Judged
from fatpatch.verdicts.words.kernels import Shown, dead

_MAX_WHY, _MAX_GROUPS, _MAX_TARGETS, _MAX_LOST, _MAX_LOCATORS = 300, 4, 12, 8, 3


def obstacle(found: FileVerdict) -> str:
    """Why a library does not run, in a few words."""
    if found.trouble is not None:
        return "; ".join(filter(None, (found.hidden, found.trouble[1])))
    if outcome_of(found) not in HOPELESS:
        return safe(found.incomplete)
    worst = next((module for module in deciding(found)), None)
    return "" if worst is None else safe(worst.verdict.reason)[:_MAX_WHY]


def _nothing(found: FileVerdict) -> Iterator[str]:
    """Why nothing in a file can be judged."""
    if found.unread:
        yield "What could be read of the file holds no code for this GPU; not read:"
        for item in found.unread[:_MAX_LOST]:
            yield from wrapped("  ", f"{safe(item.locator)}: {safe(item.message)}")
        return
    if found.for_linkers:
        yield "All GPU code in this file is input for a linker: no program loads it as it is."
        return
    vendor = "AMD" if found.environment.device.vendor == Vendor.AMD else "NVIDIA"
    yield f"There is no code for {vendor} GPUs in this file. It may be in a package that this one needs, or be compiled at run time."


def reason_lines(found: FileVerdict, show: Shown, *, verbose: bool) -> Iterator[str]:
    """The lines that say why, a group of like modules after the other."""
    if not found.modules:
        yield from _nothing(found)
        return
    if found.trouble is not None:
        number, words = found.trouble
        for sentence in filter(None, (found.hidden, words)):
            yield from wrapped("", f"{sentence[0].upper()}{sentence[1:]}.", "  ")
        if number is not None:
            yield f"CUDA returns error {number}: {error_text(number).text}."
        return
    yield from _of_package(found)
    if found.libraries and works(found) and not verbose:
        return
    counted = found.judged_by
    groups = _groups(counted)
    if not verbose and any(group[0].verdict.verdict != EMPTY for group in groups):
        groups = [group for group in groups if group[0].verdict.verdict != EMPTY]
    shown = groups if verbose else groups[:_MAX_GROUPS]
    for index, group in enumerate(shown):
        following = shown[index + 1][0].verdict.cuda_error if index + 1 < len(shown) else None
        yield from _group(group, tell_error=group[0].verdict.cuda_error != following, verbose=verbose)
    if len(shown) < len(groups):
        yield f"and {plural(len(groups) - len(shown), 'more group')} of modules (-v shows all)"
    if found.elsewhere:
        targets = sorted({image.target for module in found.elsewhere for image in module.payload.images}, key=target_key)
        count = plural(len(found.elsewhere), "module is", "modules are")
        few = ", ".join(targets[:_MAX_TARGETS]) + (f" and {len(targets) - _MAX_TARGETS} more" if len(targets) > _MAX_TARGETS else "")
        yield from wrapped("", f"{count} for other generations only ({safe(few) or 'empty now'}): a program that picks modules by GPU "
                               "never loads them here.", "  ")  # fmt: skip
    if found.for_linkers:
        count = plural(len(found.for_linkers), "module holds", "modules hold")
        yield f"{count} no kernels, or input for a linker alone: no GPU loads such."
    yield from dead(found, show, verbose=verbose)


def _of_package(found: FileVerdict) -> Iterator[str]:
    """What is known of a package's libraries as a whole: that it does not need them, or what one of them lacks."""
    if found.unneeded and not found.counted:
        words = "no GPU has code in all of them, and its Python code goes on where one cannot be loaded"
        yield from wrapped("", f"The package runs without these libraries: {words}.", "  ")
    for lacking in dict.fromkeys(unit.incomplete for unit in (found, *found.libraries) if unit.incomplete):
        yield from wrapped("", f"{safe(lacking)}.", "  ")


def _groups(modules: Sequence[Judged]) -> list[list[Judged]]:
    """Modules that fare alike, the worst first."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    chosen = is_chosen_by_host(modules)
    for module in modules:
        verdict = module.verdict
        reason = "" if _has_nothing(module) else verdict.reason
        key: tuple[object, ...] = (FAILS,) if chosen else (verdict.verdict, verdict.cuda_error, verdict.outcome, verdict.target, reason)
        groups.setdefault(key, []).append(module)
    order = [FAILS, STUB, JIT, COMPATIBLE, NATIVE, EMPTY]
    return sorted(groups.values(), key=lambda group: order.index(group[0].verdict.verdict))


def _has_nothing(module: Judged) -> bool:
    """Whether a module has nothing for the device: those that lack it are told together, whatever else they have."""
    return module.verdict.image is None and module.verdict.cuda_error == NO_IMAGE and module.verdict.verdict == FAILS


def _together(group: Sequence[Judged]) -> str:
    """Why modules that have nothing for the device load nothing."""
    if len({module.verdict.reason for module in group}) == 1:
        return _fate(group[0])
    targets = sorted({image.target for module in group for image in module.payload.images}, key=target_key)
    return f"Nothing is loaded: what there is, is for {safe(', '.join(targets))}."


def _none_of(group: Sequence[Judged]) -> str:
    """What is known of images in a library's data, from which the program itself chooses."""
    targets = sorted({image.target for module in group for image in module.payload.images}, key=target_key)
    return (
        f"The library chooses by itself among {len(group)} images, and none is for this GPU: {safe(', '.join(targets))}. Whether it has "
        "another way here, such as code that it compiles when it is needed, is not known."
    )


def _group(group: Sequence[Judged], *, tell_error: bool, verbose: bool) -> Iterator[str]:
    verdict = group[0].verdict
    names = [_place(module) for module in group]
    shown = names if verbose or len(names) <= _MAX_LOCATORS else names[:1]
    more = "" if len(shown) == len(names) else f" and {len(names) - len(shown)} more modules"
    if is_chosen_by_host(group):
        yield _none_of(group)
        tell_error = False
    else:
        yield _together(group) if _has_nothing(group[0]) else _fate(group[0])
    yield f"  {', '.join(shown)}{more}"
    if not tell_error or verdict.verdict == EMPTY:
        return
    if verdict.cuda_error is not None and group[0].payload.vendor == Vendor.AMD:
        yield f"  HIP returns error {verdict.cuda_error}, hipErrorNoBinaryForGpu (newer runtimes: 200, hipErrorInvalidImage)."
    elif verdict.cuda_error is not None:
        text = error_text(verdict.cuda_error)
        yield f"  CUDA returns error {verdict.cuda_error}, {text.runtime_name or text.name}: {text.text}."


def _place(module: Judged) -> str:
    """A locator without the name of the outermost file, which the first line has."""
    locator = safe(module.verdict.locator)
    inner = locator.partition(SEPARATOR)[2]
    text = inner if SEPARATOR in inner else locator
    return middle(text, WIDTH - 3)


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
    if module.payload.vendor == Vendor.AMD:
        return f"The runtime loads {safe(verdict.target or '')}: {because}."
    kernels = " (it has the kernels below)" if verdict.verdict == STUB else ""
    return f"The driver {'compiles' if verdict.image.kind != ImageKind.SASS else 'loads'} {verdict.target}: {because}{kernels}."


def base_of(name: str) -> str:
    """A name without template arguments, unless it says nothing without them."""
    base = name.partition("<")[0]
    return name if base.rpartition("::")[2] in ("device_kernel", "Kernel", "Kernel2", "kernel") else base
