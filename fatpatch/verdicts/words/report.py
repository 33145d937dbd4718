"""The text of ``doctor``: the verdict in the first line, in words; then why; then what to do."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from fatpatch.base.locator import SEPARATOR, file_name
from fatpatch.base.words import plural, safe
from fatpatch.gpus.cuda_errors import error_text
from fatpatch.gpus.drivers import on_jetson_linux
from fatpatch.hostcode import llamafile
from fatpatch.scan.coverage import target_key
from fatpatch.verdicts.alternatives import common, variant
from fatpatch.verdicts.beside import Needed
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.load_result import NO_IMAGE
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB
from fatpatch.verdicts.operations import OTHER, Operation
from fatpatch.verdicts.outcome import HOPELESS, OUTCOMES, counting, deciding, outcome_of, works
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.results import FileVerdict, Judged
from fatpatch.verdicts.words import context
from fatpatch.verdicts.words.kernels import Shown, dead, short

_HEIGHT = 40
_COMMAND_INDENT = 6
_COMMANDS = ("fatpatch", "nvcc", "cmake", "pip", "python", "npx", "export")
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*=")
_MAX_LOST = 8
_MAX_LOCATORS = 3
_WIDTH, _NARROWEST = 80, 40
_MAX_NAMES, _MAX_WHY, _MAX_GROUPS, _MAX_TARGETS = 8, 300, 4, 12
_FIRST, _KEPT, _SHORTEST = 0, 3, 4
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
        (_FIRST, wrapped("", headline(found, shown))),
        (2, _libraries(found, verbose=verbose)),
        (2, _operations(failing, verbose=verbose)),
        (3, _why(found, show, verbose=verbose)),
        (5, _lost(found, verbose=verbose)),
        *((4, section(found)) for section in context.SECTIONS[:-1]),
        (4, _beside(beside, verbose=verbose)),
        (4, context.SECTIONS[-1](found)),
        *((_level(rows, helps), _remedies(rows, helps, heading)) for helps, heading in _HEADINGS),
    ]
    folded = [(level, [part for line in section for part in ([line] if verbose else _folded(line))]) for level, section in sections]
    bodies = [(level, _trimmed(lines)) for level, lines in folded if any(lines)]
    if not verbose and not llamafile.is_llamafile(found.node):
        bodies = _fitted(bodies)
    for index, (_, lines) in enumerate(bodies):
        yield from ([""] if index else []) + lines


def _level(rows: Sequence[Remedy], helps: bool | None) -> int:
    """As in ``_LEVELS``; where nothing works for sure, what may help takes its place, and an answer about a candidate stays."""
    chosen = [remedy for remedy in rows if remedy.works is helps]
    if any(remedy.asked for remedy in chosen) or (helps is None and not any(remedy.works for remedy in rows)):
        return _LEVELS[True]
    return _LEVELS[helps]


def _trimmed(lines: list[str]) -> list[str]:
    """Without blank lines at both ends."""
    while lines and not lines[0]:
        lines = lines[1:]
    while lines and not lines[-1]:
        lines = lines[:-1]
    return lines


def _fitted(bodies: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Sections of at most 40 lines together: what helps least is left out first, and what is longest is cut."""
    left_out = 0

    def height() -> int:
        return sum(len(lines) + 1 for _, lines in bodies) - 1 + (2 if left_out else 0)

    while height() > _HEIGHT and any(level > _KEPT for level, _ in bodies):
        worst = max(range(len(bodies)), key=lambda index: (bodies[index][0], index))
        left_out += len(bodies.pop(worst)[1])
    while height() > _HEIGHT and max(len(lines) for _, lines in bodies) > _SHORTEST:
        longest = max(range(len(bodies)), key=lambda index: len(bodies[index][1]))
        level, lines = bodies[longest]
        keep = _whole(lines, max(len(lines) - (height() - _HEIGHT) - (0 if left_out else 2), _SHORTEST))
        left_out += len(lines) - keep
        bodies[longest] = (level, lines[:keep])
    if left_out:
        bodies.append((_FIRST, [f"{left_out} more lines with -v"]))
    return bodies


def _whole(lines: Sequence[str], keep: int) -> int:
    """How many of the lines to keep so that no sentence is cut: the next one begins no farther in than the one before it began."""
    for count in range(keep, 0, -1):
        if _indent(lines[count]) <= _indent(lines[count - 1]) or lines[count - 1].endswith((".", ":")):
            return count
    return keep


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _folded(line: str) -> list[str]:
    """A line in pieces that fit; the later ones are indented, those of a command end its lines as a shell wants it."""
    if len(line) <= _WIDTH:
        return [line]
    indent = " " * (len(line) - len(line.lstrip()))
    first = line.split()[0]
    command = len(indent) >= _COMMAND_INDENT and (first in _COMMANDS or _SETTING.match(first) is not None)
    if not command:
        line = indent + " ".join(middle(word, _WIDTH - len(indent) - 3) for word in line.split(" "))
    pieces = textwrap.wrap(
        line.strip(), _WIDTH - 2 * command, initial_indent=indent, subsequent_indent=indent + "  ",
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [f"{piece} \\" for piece in pieces[:-1]] + pieces[-1:] if command else pieces


def middle(word: str, width: int) -> str:
    """A word of at most ``width`` characters: of a longer one the beginning and the end."""
    return word if len(word) <= width else f"{word[: width // 3]}...{word[-(width - width // 3 - 3) :]}"


def _libraries(found: FileVerdict, *, verbose: bool) -> Iterator[str]:
    """The libraries of an archive: one line for those that fare alike, and for alternatives which of them run."""
    grouped = {id(unit) for group in found.alternatives for unit in group}
    counted = frozenset(map(id, counting(found)))
    rows: dict[tuple[str, str], list[str]] = {}
    for unit in found.libraries:
        if id(unit) not in grouped:
            why = _obstacle(unit) if verbose or unit.trouble is not None or works(found) else ""  # else the modules below say it
            rows.setdefault((_word(unit, counts=id(unit) in counted), why), []).append(safe(file_name(unit.node.path)))
    for group in found.alternatives:
        paths = [unit.node.path for unit in group]
        yield from wrapped("", f"{len(group)} alternatives, of which a program loads one: {safe(common(paths))}")
        fates: dict[tuple[str, str], list[str]] = {}
        for unit in group:
            counts = any(id(each) in counted for each in group)
            fates.setdefault((_word(unit, counts=counts), _obstacle(unit)), []).append(safe(variant(unit.node.path, paths)))
        yield from _fates(fates, verbose=verbose)
        for unit in found.chosen:
            if any(unit is each for each in group):
                yield from wrapped(
                    "  ", f"CUDA {found.environment.cuda} loads {safe(file_name(unit.node.path))}: {OUTCOMES[outcome_of(unit)]}"
                )
    if rows and found.alternatives:
        yield "Other libraries:"
    if len(rows) > 1 or found.alternatives or verbose:
        yield from _fates(rows, verbose=verbose)
    if found.libraries:
        yield ""


def _word(unit: FileVerdict, *, counts: bool) -> str:
    """The verdict on a library; of one that does not count for the whole, since it is made for other GPUs, that."""
    return OUTCOMES[outcome_of(unit)] if counts or outcome_of(unit) not in HOPELESS else _NOT_FOR_THIS


def _fates(rows: Mapping[tuple[str, str], Sequence[str]], *, verbose: bool) -> Iterator[str]:
    for (word, why), names in sorted(rows.items(), key=lambda row: row[0]):
        shown = names if verbose else names[:_MAX_NAMES]
        more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
        yield from wrapped("  ", f"{word}: {', '.join(shown)}{more}", f"    {why}" if why else "")


def _obstacle(found: FileVerdict) -> str:
    """Why a library does not run, in a few words."""
    if found.trouble is not None:
        return "; ".join(filter(None, (found.hidden, found.trouble[1])))
    if outcome_of(found) not in HOPELESS:
        return ""
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
    vendor = "AMD" if found.environment.device.vendor == "amd" else "NVIDIA"
    yield f"There is no code for {vendor} GPUs in this file. It may be in a package that this one needs, or be compiled at run time."


def _why(found: FileVerdict, show: Shown, *, verbose: bool) -> Iterator[str]:
    if not found.modules:
        yield from _nothing(found)
        return
    if found.trouble is not None:
        number, words = found.trouble
        for obstacle in filter(None, (found.hidden, words)):
            yield from wrapped("", f"{obstacle[0].upper()}{obstacle[1:]}.", "  ")
        if number is not None:
            yield f"CUDA returns error {number}: {error_text(number).text}."
        return
    if found.libraries and works(found) and not verbose:
        return
    counted = [module for unit in counting(found) for module in unit.here] if found.libraries else list(found.here)
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


def _groups(modules: Sequence[Judged]) -> list[list[Judged]]:
    """Modules that fare alike, the worst first."""
    groups: dict[tuple[object, ...], list[Judged]] = {}
    for module in modules:
        verdict = module.verdict
        reason = "" if _has_nothing(module) else verdict.reason
        key = (verdict.verdict, verdict.cuda_error, verdict.outcome, verdict.target, reason)
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


def _group(group: Sequence[Judged], *, tell_error: bool, verbose: bool) -> Iterator[str]:
    verdict = group[0].verdict
    names = [_place(module) for module in group]
    shown = names if verbose or len(names) <= _MAX_LOCATORS else names[:1]
    more = "" if len(shown) == len(names) else f" and {len(names) - len(shown)} more modules"
    yield _together(group) if _has_nothing(group[0]) else _fate(group[0])
    yield f"  {', '.join(shown)}{more}"
    if not tell_error or verdict.verdict == EMPTY:
        return
    if verdict.cuda_error is not None and group[0].payload.vendor == "amd":
        yield f"  HIP returns error {verdict.cuda_error}, hipErrorNoBinaryForGpu (newer runtimes: 200, hipErrorInvalidImage)."
    elif verdict.cuda_error is not None:
        text = error_text(verdict.cuda_error)
        yield f"  CUDA returns error {verdict.cuda_error}, {text.runtime_name or text.name}: {text.text}."


def _place(module: Judged) -> str:
    """A locator without the name of the outermost file, which the first line has."""
    locator = safe(module.verdict.locator)
    inner = locator.partition(SEPARATOR)[2]
    text = inner if SEPARATOR in inner else locator
    return middle(text, _WIDTH - 3)


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
    if found.trouble is not None or (found.libraries and works(found) and not verbose):
        return
    counted = [module for unit in counting(found) for module in unit.here] if found.libraries else list(found.here)
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
    if found.environment.device.vendor == "nvidia" and not any(i.kind == "ptx" for module in chosen for i in module.payload.images):
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
        yield head + middle(safe(_base(short(row.kernel))), max(_WIDTH - len(head), _NARROWEST // 2))
    if len(shown) < len(rows):
        yield f"  and {len(rows) - len(shown)} more (-v shows all)"


def _base(name: str) -> str:
    """A name without template arguments, unless it says nothing without them."""
    base = name.partition("<")[0]
    return name if base.rpartition("::")[2] in ("device_kernel", "Kernel", "Kernel2", "kernel") else base


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
            yield from _hanging(f"  {safe(remedy.title).ljust(width)}  ", remedy.why)
            if remedy.command is not None:
                yield f"      {safe(remedy.command)}"


def _hanging(head: str, words: str) -> Iterator[str]:
    """Words behind a head, wrapped, with the later lines below the first."""
    lines = textwrap.wrap(safe(words), max(_WIDTH - len(head), _NARROWEST), break_long_words=False, break_on_hyphens=False)
    for index, line in enumerate(lines or [""]):
        yield (head if index == 0 else " " * len(head)) + line


def wrapped(head: str, *paragraphs: str) -> Iterator[str]:
    """Paragraphs wrapped to the width of a terminal; blanks at the start of one are its indentation."""
    for words in filter(None, paragraphs):
        indent = head + " " * (len(words) - len(words.lstrip()))
        yield from textwrap.wrap(
            words.strip(), _WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_long_words=False, break_on_hyphens=False
        )
