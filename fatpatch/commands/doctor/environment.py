"""The verdict on what is installed in a folder: one row a distribution, the weakest link first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fatpatch.base.locator import file_name
from fatpatch.base.words import columns, plural, safe
from fatpatch.verdicts.beside import Needed
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.outcome import OUTCOMES, outcome_of, works
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words.layout import wrapped
from fatpatch.verdicts.words.report import device_words

_WIDTH = 80
_MAX_MISSING = 6
_NOTHING_RUNS = frozenset({"no-code", "will-not-run"})


class DistributionRow(NamedTuple):
    """A distribution with GPU code, its verdict, and what its libraries load that is nowhere in the folder."""

    shown: str
    found: FileVerdict
    missing: tuple[Needed, ...]


def environment_text(shown: str, environment: Environment, rows: Sequence[DistributionRow], without: int) -> Iterator[str]:
    """The verdict in the first line, with the weakest link; then each distribution, the worst first."""
    order = tuple(OUTCOMES)
    listed = sorted(rows, key=lambda row: (order.index(outcome_of(row.found)), row.shown))
    driver = "" if environment.driver is None else f", driver {environment.driver.version}"
    where = f"{safe(shown)} on {device_words(environment)}{driver}"
    bad = [row for row in listed if not works(row.found)]
    if not rows:
        yield f"NO GPU CODE: {where}: {plural(without, 'distribution')} without GPU code"
        return
    hopeless = all(outcome_of(row.found) in _NOTHING_RUNS for row in rows)
    word = "WILL RUN" if not bad else "WILL NOT RUN" if hopeless else "WILL RUN IN PART"
    weakest = f"; the weakest link is {safe(bad[0].shown)}: {OUTCOMES[outcome_of(bad[0].found)]}" if bad else ""
    yield from wrapped("", f"{word}: {where}{weakest}")
    yield ""
    table = [
        (safe(row.shown), OUTCOMES[outcome_of(row.found)], str(max(len(row.found.libraries), 1)), _loaded(row.found)) for row in listed
    ]
    yield from (
        line[:_WIDTH].rstrip() for line in columns(("distribution", "verdict", "libraries", "loaded"), table, left=frozenset({0, 1, 3}))
    )
    yield ""
    yield f"{plural(without, 'distribution')} without GPU code"
    missing: dict[str, Needed] = {need.library.name: need for row in rows for need in row.missing}
    if missing:
        names = list(missing)[:_MAX_MISSING]
        more = f" and {len(missing) - len(names)} more" if len(missing) > len(names) else ""
        packages = list(dict.fromkeys(need.package for need in missing.values() if need.package))[:_MAX_MISSING]
        install = f" (pip install {' '.join(packages)})" if packages else ""
        yield from wrapped("", f"Loaded libraries that are not installed: {', '.join(names)}{more}{install}")
    if bad:
        yield f"Why: fatpatch doctor {safe(bad[0].shown.split(' ')[0])} --gpu {environment.device.target}"


def _loaded(found: FileVerdict) -> str:
    """Of alternatives the one for the environment's CUDA release, where that is known."""
    return ", ".join(safe(file_name(unit.node.path)) for unit in found.chosen)
