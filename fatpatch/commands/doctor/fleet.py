"""Tables of ``doctor`` for several GPUs, and for several files side by side."""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

from fatpatch.api.consultation import OUTCOMES, FileVerdict, outcome_of, works
from fatpatch.api.kernels import readable
from fatpatch.api.verdict import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, STUB, driver_range, seconds, short
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import columns, plural, safe
from fatpatch.model.kinds import ImageKind

_LETTERS = {NATIVE: "native", COMPATIBLE: "compatible", JIT: "jit", EMPTY: "empty", STUB: "STUB", FAILS: "FAILS"}
_MAX_GROUPS = 8
_MAX_NAMES = 3


class FleetRow(NamedTuple):
    """One GPU, or all products of one target: what the table shows of its verdict, which is not kept.

    ``cells``: how each module fares; ``locators``: which they are.
    """

    name: str
    vendor: str
    target: str
    verdict: str
    driver: str
    cells: tuple[str, ...]
    locators: tuple[str, ...]

    @classmethod
    def of(cls, found: FileVerdict, names: tuple[str, ...]) -> FleetRow:
        """``names``: the products of the target."""
        device = found.environment.device
        return cls(
            _name(names) or device.name,
            device.vendor,
            device.target,
            _words(found),
            driver_range(found) if _ranged(found) else "-",
            tuple(sys.intern(_cell(found, index)) for index in range(len(found.modules))),
            tuple(module.verdict.locator for module in found.modules),
        )


def fleet(rows: Sequence[FleetRow], shown: str, driver: str | None) -> Iterator[str]:
    """A matrix of GPUs by modules; modules that fare alike everywhere share a column. ``driver``: the one that was asked for."""
    modules = len(rows[0].cells) if rows else 0
    yield f"{safe(shown)}: {plural(modules, 'module')} on {plural(len(rows), 'GPU')}{f', driver {driver}' if driver else ''}"
    yield ""
    groups = _groups(rows)
    header = ["GPU", "target", "verdict", "driver", *(name for name, _ in groups[:_MAX_GROUPS])]
    table = [
        [row.name, row.target, row.verdict, row.driver, *(row.cells[indices[0]] for _, indices in groups[:_MAX_GROUPS])] for row in rows
    ]
    yield from columns(header, table, left=frozenset(range(len(header))))
    if len(groups) > 1:
        yield ""
        for name, indices in groups[:_MAX_GROUPS]:
            locators = [safe(rows[0].locators[index]) for index in indices[:_MAX_NAMES]]
            yield f"  {name}: {plural(len(indices), 'module')}, {', '.join(locators)}{', ...' if len(indices) > _MAX_NAMES else ''}"
        if len(groups) > _MAX_GROUPS:
            yield f"  and {len(groups) - _MAX_GROUPS} more groups of modules (--format json has all)"


def _groups(rows: Sequence[FleetRow]) -> list[tuple[str, list[int]]]:
    """(name, module indices), the largest first."""
    if not rows or not all(len(row.cells) == len(rows[0].cells) for row in rows):
        return []
    found: dict[tuple[str, ...], list[int]] = {}
    for index, key in enumerate(zip(*(row.cells for row in rows), strict=True)):
        found.setdefault(key, []).append(index)
    ordered = sorted(found.values(), key=lambda indices: (-len(indices), indices[0]))
    return [("all modules" if len(ordered) == 1 else f"group {chr(65 + index)}", indices) for index, indices in enumerate(ordered)]


def _cell(found: FileVerdict, index: int) -> str:
    verdict = found.modules[index].verdict
    word = _LETTERS[verdict.verdict]
    if verdict.verdict == FAILS:
        return f"{word} {verdict.outcome or verdict.cuda_error or ''}".strip()
    return f"{word} {verdict.target}" if verdict.target else word


def _words(found: FileVerdict) -> str:
    word = OUTCOMES[outcome_of(found)]
    return f"{word} ({seconds(found.cost.seconds)})" if found.cost is not None and outcome_of(found) == "slow-start" else word


def _ranged(found: FileVerdict) -> bool:
    """Whether there is a range of drivers to tell: where the file runs."""
    return bool(found.needs and found.modules) and works(found)


def _name(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


_WIDTH = 80
_COLUMNS = 3
"""Files that are shown in columns."""


def side_by_side(found: Sequence[tuple[str, FileVerdict]]) -> Iterator[str]:
    """Files on the same GPU: what is loaded and what is different; two in columns, more in a row each."""
    names = _short([shown for shown, _ in found])
    if len(found) > _COLUMNS:
        header = ("verdict", "loaded", "broken", "driver", "file")
        table = [
            (
                OUTCOMES[outcome_of(verdict)],
                _loaded(verdict),
                _count(verdict, defects=True),
                driver_range(verdict) if _ranged(verdict) else "-",
                name,
            )
            for name, (_, verdict) in zip(names, found, strict=True)
        ]
        yield from columns(header, table, left=frozenset(range(len(header))))
        return
    rows = [
        ["verdict", *(OUTCOMES[outcome_of(verdict)] for _, verdict in found)],
        ["modules", *(str(len(verdict.modules)) for _, verdict in found)],
        ["loaded", *(_loaded(verdict) for _, verdict in found)],
        ["kernels", *(_count(verdict, defects=False) for _, verdict in found)],
        ["that do not work", *(_count(verdict, defects=True) for _, verdict in found)],
        ["PTX", *(_ptx(verdict) for _, verdict in found)],
        ["first start", *("-" if verdict.cost is None else seconds(verdict.cost.seconds) for _, verdict in found)],
        ["driver (Linux)", *(driver_range(verdict) if _ranged(verdict) else "-" for _, verdict in found)],
        ["host", *(_host(verdict) for _, verdict in found)],
    ]
    left = frozenset(range(len(found) + 1))
    lines = columns(["", *names], rows, left=left)
    if max(map(len, lines)) > _WIDTH:  # letters in place of long names
        letters = [chr(65 + index) for index in range(len(found))]
        yield from (f"{letter}  {name}" for letter, name in zip(letters, names, strict=True))
        yield ""
        lines = columns(["", *letters], rows, left=left)
    yield from lines


def differences(found: Sequence[tuple[str, FileVerdict]]) -> Iterator[str]:
    """Why one runs and the other does not: what is loaded, what of it does not work, and what it prints."""
    for shown, verdict in found:
        if verdict.trouble is not None or not verdict.modules:
            yield from _reason(shown, verdict.trouble[1] if verdict.trouble else "no code for this GPU")
            continue
        worst = next((module for module in verdict.modules if module.verdict.verdict == verdict.verdict), verdict.modules[0])
        yield from _reason(shown, safe(worst.verdict.reason))
        defects = {kernel.name: kernel for module in verdict.modules for kernel in module.verdict.defects}
        if defects:
            names = list(dict.fromkeys(short(readable(name)) for name in defects))
            more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
            dead = "does" if len(defects) == 1 else "do"
            yield f"  {plural(len(defects), 'kernel')} of it {dead} not work on this GPU: {safe(', '.join(names[:_MAX_NAMES]))}{more}"
        message = next((kernel.message for kernel in defects.values() if kernel.message), None)
        if message is not None:
            yield f'  it will print: "{safe(message)}"'
    if len(found) > 1:
        yield ""
        yield "For what helps, ask about one file alone, with the other as --candidate."


def _reason(shown: str, words: str) -> Iterator[str]:
    """A file's name and its reason, on one line where it fits."""
    line = f"{safe(shown)}: {words}"
    if len(line) <= _WIDTH:
        yield line
        return
    yield f"{safe(shown)}:"
    yield from textwrap.wrap(words, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _count(found: FileVerdict, *, defects: bool) -> str:
    """Kernels by name: libraries for several systems, and relocatable code, hold each twice."""
    kernels = [kernel for module in found.modules for kernel in module.verdict.kernels]
    return str(len({kernel.name for kernel in kernels if kernel.defect or not defects})) if kernels else "-"


def _short(names: Sequence[str]) -> list[str]:
    """The last parts of the names, as many as tell them apart."""
    parts = [name.replace("\\", "/").split("/") for name in names]
    for count in range(1, max(map(len, parts), default=1) + 1):
        short = ["/".join(part[-count:]) for part in parts]
        if len(set(short)) == len(short):
            break
    return [safe(name) for name in short]


def _loaded(found: FileVerdict) -> str:
    counts = Counter(module.verdict.target or f"error {module.verdict.cuda_error}" for module in found.modules)
    return ", ".join(f"{target} ({count})" for target, count in counts.most_common(3)) or "-"


def _ptx(found: FileVerdict) -> str:
    targets = dict.fromkeys(image.target for module in found.modules for image in module.payload.images if image.kind == ImageKind.PTX)
    return ", ".join(sorted(targets)) or "none"


def _host(found: FileVerdict) -> str:
    eras = dict.fromkeys(module.host.family.era for module in found.modules if module.host.family is not None)
    return ", ".join(eras) or "not known"
