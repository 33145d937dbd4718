"""The text of ``doctor``: the verdict in the first line, in words; then why; then what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fatpatch.base.layout import FIRST, NARROWEST, WIDTH, fitted, folded, hanging, middle, trimmed, wrapped
from fatpatch.base.locator import file_name
from fatpatch.base.words import plural, safe
from fatpatch.gpus.drivers import on_jetson_linux
from fatpatch.hostcode import llamafile
from fatpatch.model.kinds import ImageKind, Vendor
from fatpatch.model.target import target_key
from fatpatch.scan.slim_marks import marks_below
from fatpatch.verdicts.alternatives import common, variant
from fatpatch.verdicts.beside import Needed
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.module import FAILS, STUB
from fatpatch.verdicts.operations import OTHER, Operation
from fatpatch.verdicts.outcome import HOPELESS, OUTCOMES, outcome_of, works
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words import context
from fatpatch.verdicts.words.kernels import Shown, short
from fatpatch.verdicts.words.why import base_of, obstacle, reason_lines

_MAX_LOST, _MAX_NAMES = 8, 8
_MAX_OPERATIONS, _COUNT = 5, 11
_OTHER_MAJOR, _FEW_MAJORS = "SASS for major version ", 3
_LEVELS = {True: 1, None: 6, False: 7}
"""The higher, the sooner a section is left out."""
_NOT_FOR_THIS = "NOT FOR THIS GPU"
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


def report(
    found: FileVerdict,
    rows: Sequence[Remedy],
    shown: str,
    show: Shown,
    beside: Sequence[Needed] = (),
    failing: Sequence[Operation] = (),
    *,
    verbose: bool,
) -> Iterator[str]:
    """All lines for one file on one device; without ``verbose`` those of many modules fit a terminal of 80 columns and 40 lines."""
    sections = [
        (FIRST, wrapped("", headline(found, shown))),
        (1, [line for mark in marks_below(found.node) for line in wrapped("", f"It was {safe(mark.words)}.")]),
        (2, _libraries(found, verbose=verbose)),
        (2, _operations(failing, verbose=verbose)),
        (3, reason_lines(found, show, verbose=verbose)),
        (5, _lost(found, verbose=verbose)),
        *((4, section(found)) for section in context.SECTIONS[:-1]),
        (4, _beside(beside, verbose=verbose)),
        (4, context.SECTIONS[-1](found)),
        *((_level(rows, helps), _remedies(rows, helps, heading)) for helps, heading in _HEADINGS),
    ]
    parts = [(level, [part for line in section for part in ([line] if verbose else folded(line))]) for level, section in sections]
    bodies = [(level, trimmed(lines)) for level, lines in parts if any(lines)]
    if not verbose and not llamafile.is_llamafile(found.node):
        bodies = fitted(bodies)
    for index, (_, lines) in enumerate(bodies):
        yield from ([""] if index else []) + lines


def _level(rows: Sequence[Remedy], helps: bool | None) -> int:
    """As in ``_LEVELS``; where nothing works for sure, what may help takes its place, and an answer about a candidate stays."""
    chosen = [remedy for remedy in rows if remedy.works is helps]
    if any(remedy.asked for remedy in chosen) or (helps is None and not any(remedy.works for remedy in rows)):
        return _LEVELS[True]
    return _LEVELS[helps]


def _libraries(found: FileVerdict, *, verbose: bool) -> Iterator[str]:
    """The libraries of an archive: one line for those that fare alike, and for alternatives which of them run."""
    grouped = {id(unit) for group in found.alternatives for unit in group}
    counted = frozenset(map(id, found.counted))
    rows: dict[tuple[str, str], list[str]] = {}
    runs = works(found)
    for unit in found.libraries:
        if id(unit) not in grouped:
            why = obstacle(unit) if verbose or unit.trouble is not None or runs else ""  # else the modules below say it
            rows.setdefault((_word(unit, counts=id(unit) in counted), why), []).append(safe(file_name(unit.node.path)))
    for group in found.alternatives:
        paths = [unit.node.path for unit in group]
        yield from wrapped("", f"{len(group)} alternatives, of which a program loads one: {safe(common(paths))}")
        variants: dict[tuple[str, str], list[str]] = {}
        for unit in group:
            counts = any(id(each) in counted for each in group)
            variants.setdefault((_word(unit, counts=counts), obstacle(unit)), []).append(safe(variant(unit.node.path, paths)))
        yield from _variant_lines(variants, verbose=verbose)
        for unit in found.chosen:
            if any(unit is each for each in group):
                yield from wrapped(
                    "  ", f"CUDA {found.environment.cuda} loads {safe(file_name(unit.node.path))}: {OUTCOMES[outcome_of(unit)]}"
                )
    if rows and found.alternatives:
        yield "Other libraries:"
    if len(rows) > 1 or found.alternatives or verbose:
        yield from _variant_lines(rows, verbose=verbose)
    if found.libraries:
        yield ""


def _word(unit: FileVerdict, *, counts: bool) -> str:
    """The verdict on a library; of one that does not count for the whole, since it is made for other GPUs, that."""
    return OUTCOMES[outcome_of(unit)] if counts or outcome_of(unit) not in HOPELESS else _NOT_FOR_THIS


def _variant_lines(rows: Mapping[tuple[str, str], Sequence[str]], *, verbose: bool) -> Iterator[str]:
    for (word, why), names in sorted(rows.items(), key=lambda row: row[0]):
        shown = names if verbose else names[:_MAX_NAMES]
        more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
        yield from wrapped("  ", f"{word}: {', '.join(shown)}{more}", f"    {why}" if why else "")


def _lost(found: FileVerdict, *, verbose: bool) -> Iterator[str]:
    """Why the other images are ignored, for the group with the worst result."""
    if found.trouble is not None or (found.libraries and works(found) and not verbose):
        return
    counted = found.judged_by
    bad = [module for module in counted if module.verdict.verdict in (FAILS, STUB)]
    chosen = bad or (found.modules if verbose else ())
    lines = dict.fromkeys(line for module in chosen for line in module.verdict.lost)
    if not lines:
        return
    yield ""
    yield "Why nothing else is loaded:" if any(module.verdict.image for module in chosen) else "What there is:"
    by_reason: dict[str, list[str]] = {}
    for target, why in sorted(lines, key=lambda line: target_key(line[0])):
        by_reason.setdefault(why, []).append(target)
    by_reason = _merged(by_reason)
    shown = list(by_reason.items())[: None if verbose else _MAX_LOST]
    for why, targets in shown:
        yield f"  {safe(', '.join(dict.fromkeys(targets)))}: {safe(why)}"
    if len(shown) < len(by_reason):
        yield f"  and others, for {plural(len(by_reason) - len(shown), 'more reason')} (-v shows all)"
    if found.environment.device.vendor == Vendor.NVIDIA and not any(
        i.kind == ImageKind.PTX for module in chosen for i in module.payload.images
    ):
        yield "  no PTX: nothing can be compiled for this GPU when the program starts"


def _merged(by_reason: dict[str, list[str]]) -> dict[str, list[str]]:
    """Machine code for many other major versions in one line."""
    others = [why for why in by_reason if why.startswith(_OTHER_MAJOR)]
    if len(others) <= _FEW_MAJORS:
        return by_reason
    words = f"SASS for other major versions,{others[0].partition(',')[2]}"
    return {words: [target for why in others for target in by_reason[why]]} | {
        why: targets for why, targets in by_reason.items() if why not in others
    }


def _operations(rows: Sequence[Operation], *, verbose: bool) -> Iterator[str]:
    """What does not work, by the names of the kernels that are missing."""
    if not rows or (len(rows) == 1 and rows[0].words == OTHER):
        return
    yield "What has no code for this GPU, by the names of its kernels:"
    shown = rows if verbose else rows[:_MAX_OPERATIONS]
    width = max(len(row.words) for row in shown)
    for row in shown:
        count = plural(row.modules, "module").rjust(_COUNT)
        head = f"  {row.words.ljust(width)}  {count}  "
        yield head + middle(safe(base_of(short(row.kernel))), max(WIDTH - len(head), NARROWEST // 2))
    if len(shown) < len(rows):
        yield f"  and {len(rows) - len(shown)} more (-v shows all)"


def _beside(rows: Sequence[Needed], *, verbose: bool) -> Iterator[str]:
    """The libraries that must be found when this one is loaded, and what installs them."""
    missing = [row for row in rows if not row.here and (row.library.imported or verbose)]
    if not missing:
        return
    packages = list(dict.fromkeys(row.package for row in missing if row.package))
    where = f" (pip install {' '.join(packages)})" if packages else ""
    yield from wrapped("", f"Loads libraries that are not in this file: {', '.join(row.library.name for row in missing)}{where}.", "  ")


def _remedies(rows: Sequence[Remedy], helps: bool | None, heading: str) -> Iterator[str]:
    chosen = sorted((remedy for remedy in rows if remedy.works is helps), key=lambda remedy: not remedy.asked)
    if chosen:
        yield heading
        width = max(len(safe(remedy.title)) for remedy in chosen)
        for remedy in chosen:
            yield from hanging(f"  {safe(remedy.title).ljust(width)}  ", remedy.why)
            if remedy.command is not None:
                yield f"      {safe(remedy.command)}"
