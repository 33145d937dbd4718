"""The releases of a project as text, as a Markdown table for its README, and as JSON (schema releases-1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fatpatch import __version__
from fatpatch.api.gpus import Environment
from fatpatch.api.releases import OUTCOMES, JudgedProject, JudgedRelease, ReleaseAnswer, ReleasesFound, device_words
from fatpatch.base.layout import wrapped
from fatpatch.base.words import columns, plural, safe

SCHEMA = "fatpatch.releases/1"
_WORDS = {
    "no-code": "no GPU code",
    "will-not-run": "no",
    "runs-in-part": "in part",
    "fails-in-part": "fails in part",
    "may-fail-in-part": "may fail in part",
    "not-read": "cannot tell",
    "not-promised": "probably",
    "slow-start": "yes, compiled",
    "runs": "yes",
}


def text(found: ReleasesFound) -> Iterator[str]:
    """Of each project the answer for each GPU first, then the table."""
    for index, each in enumerate(found.projects):
        if index:
            yield ""
        for gpu, environment in enumerate(found.environments):
            yield from wrapped("", _headline(each, gpu, environment))
        yield ""
        names = [_short(environment) for environment in found.environments]
        rows = [(safe(row.version), *_cells(row, len(names))) for row in each.rows]
        yield from columns(("release", *names), rows, left=frozenset(range(len(names) + 1)))
        yield ""
        yield from _notes(each)


def markdown(found: ReleasesFound) -> Iterator[str]:
    """A table of releases and GPUs for each project; releases with the same answers share a row."""
    for index, each in enumerate(found.projects):
        if index:
            yield ""
        yield "| " + " | ".join([_plain(each.project.name), *(_plain(_short(environment)) for environment in found.environments)]) + " |"
        yield "|---" * (len(found.environments) + 1) + "|"
        groups: list[tuple[list[str], tuple[str, ...]]] = []
        for row in each.rows:
            cells = tuple(cell.rstrip("~=").strip() for cell in _cells(row, len(found.environments)))
            if groups and groups[-1][1] == cells:
                groups[-1][0].append(row.version)
            else:
                groups.append(([row.version], cells))
        for versions, cells in groups:
            name = versions[0] if len(versions) == 1 else f"{versions[-1]} to {versions[0]}"
            yield f"| {_plain(name)} | {' | '.join(map(_plain, cells))} |"


def document(found: ReleasesFound) -> dict[str, Any]:
    """The document of the schema."""
    return {
        "schema": SCHEMA,
        "tool_version": __version__,
        "gpus": [{"name": each.device.name, "target": each.device.target, "driver": each.driver_name} for each in found.environments],
        "projects": [
            {
                "name": each.project.name,
                "what": each.project.what,
                "older": each.older,
                "newest": [None if (row := each.newest(gpu)) is None else row.version for gpu in range(len(found.environments))],
                "releases": [_row(row) for row in each.rows],
            }
            for each in found.projects
        ],
    }


def _row(row: JudgedRelease) -> dict[str, Any]:
    return {
        "version": row.version,
        "file": row.file,
        "answers": [
            {"outcome": each.outcome, "runs": each.works, "compiles": each.compiles, "targets": list(each.targets)} for each in row.answers
        ],
        "modules": row.modules,
        "sampled": row.sampled,
        "fetched": row.fetched,
        "known": row.kept,
        "assumed": row.assumed,
        "error": row.error or None,
    }


def _headline(each: JudgedProject, gpu: int, environment: Environment) -> str:
    driver = "" if environment.driver is None else f", driver {environment.driver.version}"
    where = f"{device_words(environment)}{driver}"
    row = each.newest(gpu)
    if row is None:
        word = "CANNOT TELL" if any(row.error for row in each.rows) else "NO RELEASE RUNS"
        return f"{word}: {safe(each.project.name)} on {where}, of {plural(len(each.rows), 'release')} looked at"
    how = f": {each.project.command.format(row.version)}" if each.project.command else ""
    newest = " (the newest)" if row is each.rows[0] else ""
    return f"{safe(row.version)}{newest} RUNS: {safe(each.project.name)} on {where}{safe(how)}"


def _cells(row: JudgedRelease, count: int) -> list[str]:
    if row.error:
        return ["cannot be read"] * count
    mark = " =" if row.assumed else " ~" if row.sampled is not None else ""
    return [f"{_word(answer)}{mark}" for answer in row.answers]


def _word(answer: ReleaseAnswer) -> str:
    word = _WORDS.get(answer.outcome, OUTCOMES[answer.outcome].lower())
    return "yes, compiled" if answer.outcome == "runs" and answer.compiles else word


def _notes(each: JudgedProject) -> Iterator[str]:
    yield from wrapped("", f"{each.project.what}; by the headers of their images: kernels are not looked at")
    if any(row.sampled is not None and not row.assumed for row in each.rows):
        yield "~  by samples of its modules; --whole reads all"
    if any(row.assumed for row in each.rows):
        yield "=  not opened: the releases beside it agree"
    if any(answer.compiles for row in each.rows for answer in row.answers):
        yield "compiled: the driver compiles PTX at the first start"
    if each.older:
        yield f"{plural(each.older, 'older release')} not looked at (--last {len(each.rows) + each.older})"


def _short(environment: Environment) -> str:
    return environment.device.name.removeprefix("GeForce ").removeprefix("Radeon ")


def _plain(cell: str) -> str:
    return safe(cell).replace("|", "\\|").replace("<", "&lt;")
