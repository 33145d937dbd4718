"""The verdict on what is installed in a folder: one row a distribution, the weakest link first."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.api.consultation import OUTCOMES, FileVerdict, FolderVerdict, Needed, outcome_of, works
from fatpatch.api.gpus import Environment
from fatpatch.api.verdict import device_words, obstacle
from fatpatch.base.layout import middle, wrapped
from fatpatch.base.locator import file_name
from fatpatch.base.shell_word import shell_word
from fatpatch.base.words import columns, plural, safe

_WIDTH = 80
_NAME = 28
_MAX_MISSING = 6
_NOTHING_RUNS = frozenset({"no-code", "will-not-run"})
_ORDER = tuple(OUTCOMES)


def first_line(folder: FolderVerdict) -> str:
    """The verdict with the weakest link, on one line."""
    return " ".join(line.strip() for line in _heads(folder))


def text(folder: FolderVerdict, driver: str | None) -> list[str]:
    """The verdict in the first line, with the weakest link; then each distribution, the worst first; for several GPUs a table."""
    lines = list(_heads(folder))
    if folder.rows:
        lines += ["", *(line[:_WIDTH].rstrip() for line in _table(folder))]
        lines.append("")
        if folder.without:
            lines.append(f"{plural(folder.without, 'distribution')} without GPU code")
        if count := sum(row.by_headers for row in folder.rows):
            lines.append(f"{plural(count, 'distribution')} judged by image headers; 'fatpatch doctor NAME' looks at kernels")
        lines += _kernels(folder)
        lines += _missing(folder)
        lines += _next(folder, driver)
    return lines


def _heads(folder: FolderVerdict) -> Iterator[str]:
    for index, environment in enumerate(folder.environments):
        yield from wrapped("", _head(folder, index, environment))


def _head(folder: FolderVerdict, index: int, environment: Environment) -> str:
    driver = "" if environment.driver is None else f", driver {environment.driver.version}"
    where = f"{safe(folder.shown)} on {device_words(environment)}{driver}"
    if not folder.rows:
        return f"NO GPU CODE: {where}: {plural(folder.without, 'distribution')} without GPU code"
    found = sorted(((row.found[index], row.shown) for row in folder.rows), key=lambda pair: (_ORDER.index(outcome_of(pair[0])), pair[1]))
    bad = [pair for pair in found if not works(pair[0])]
    hopeless = all(outcome_of(each) in _NOTHING_RUNS for each, _ in found)
    unread = bool(bad) and all(outcome_of(each) == "not-read" for each, _ in bad)
    word = "WILL RUN" if not bad else "WILL NOT RUN" if hopeless else "CANNOT TELL" if unread else "WILL RUN IN PART"
    weakest = f"; the weakest link is {safe(bad[0][1])}: {OUTCOMES[outcome_of(bad[0][0])]}" if bad else ""
    return f"{word}: {where}{weakest}"


def _table(folder: FolderVerdict) -> Iterator[str]:
    listed = sorted(folder.rows, key=lambda row: (row.worst, row.shown))
    if len(folder.environments) == 1:
        rows = [
            (safe(row.shown), OUTCOMES[outcome_of(row.found[0])], str(max(len(row.found[0].libraries), 1)), _loaded(row.found[0]))
            for row in listed
        ]
        head = ("distribution", "verdict", "libraries", "loaded")
        shown = len(head) if any(loaded for *_, loaded in rows) else len(head) - 1
        yield from columns(head[:shown], [row[:shown] for row in rows], left=frozenset({0, 1, 3}))
        return
    names = [environment.device.name.removeprefix("GeForce ").removeprefix("Radeon ") for environment in folder.environments]
    table = [(middle(safe(row.shown), _NAME), *(outcome_of(each) for each in row.found)) for row in listed]
    yield from columns(("distribution", *names), table, left=frozenset(range(len(names) + 1)))


def _kernels(folder: FolderVerdict) -> Iterator[str]:
    """What folders of kernel libraries have not."""
    reasons = (obstacle(unit) for row in folder.rows for found in row.found for unit in (found, *found.libraries) if row.kernels)
    for reason in dict.fromkeys(filter(None, reasons)):
        yield from wrapped("", f"{reason}.", "  ")


def _missing(folder: FolderVerdict) -> Iterator[str]:
    missing: dict[str, Needed] = {need.library.name: need for row in folder.rows for need in row.missing}
    if not missing:
        return
    names = list(missing)[:_MAX_MISSING]
    more = f" and {len(missing) - len(names)} more" if len(missing) > len(names) else ""
    packages = list(dict.fromkeys(need.package for need in missing.values() if need.package))[:_MAX_MISSING]
    install = f" (pip install {' '.join(packages)})" if packages else ""
    yield from wrapped("", f"Loaded libraries that are not installed: {', '.join(names)}{more}{install}")


def _next(folder: FolderVerdict, driver: str | None) -> Iterator[str]:
    """The question about the weakest link alone."""
    bad = [
        (_ORDER.index(outcome_of(found)), row.shown, environment)
        for row in folder.rows
        for found, environment in zip(row.found, folder.environments, strict=True)
        if not works(found) and row.shown in folder.names
    ]
    if bad:
        _, shown, environment = min(bad, key=lambda each: each[:2])
        option = f" --driver {driver}" if driver and environment.driver else ""
        where = f" --python {shell_word(safe(folder.python))}" if folder.python else ""
        yield f"Why: fatpatch doctor {folder.names[shown]}{where} --gpu {environment.device.target}{option}"


def _loaded(found: FileVerdict) -> str:
    """Of alternatives the one for the environment's CUDA release, where that is known."""
    return ", ".join(safe(file_name(unit.node.path)) for unit in found.chosen)
