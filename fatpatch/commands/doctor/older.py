"""``doctor --releases``: another release of the package that runs, as a remedy."""

from __future__ import annotations

from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.patterns import lazy_pattern
from fatpatch.commands._shared.kept import releases_index
from fatpatch.commands._shared.progress import Progress
from fatpatch.index.database import Database
from fatpatch.index.projects import python_project
from fatpatch.index.releases import ReleaseReader, until_it_runs
from fatpatch.named.unit import NamingChoices
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.remedy import Remedy

_PROJECTS: Final = (
    lazy_pattern(r"pypi:([A-Za-z0-9._-]+)=="),
    lazy_pattern(r"([A-Za-z0-9._]+)-[^-]+(?:-[^-]+){3,4}\.whl\Z"),
    lazy_pattern(r"([A-Za-z0-9._-]+) \d\S*\Z"),
)
_LAST: Final = 20


def project_of(shown: str) -> str | None:
    """The project of ``pypi:NAME==VERSION/...``, of a wheel, or of an installed ``NAME VERSION``; None of anything else."""
    for name in (shown, file_name(shown)):
        for pattern in _PROJECTS:
            if found := pattern.match(name):
                return found[1]
    return None


def other_release(shown: str, environment: Environment, choices: NamingChoices, limits: Limits) -> Remedy | None:
    """The newest of the last releases whose headers say that it runs; None where the name is that of no project.

    What an index does not answer is a remedy of which nothing is known.
    """
    name = project_of(shown)
    if name is None:
        return None
    title = "another release"
    try:
        project = python_project(name, choices, prereleases=False)
        index = Database(releases_index(), create=True)
        try:
            with Progress(f"releases of {name}") as progress:
                considered = project.releases[:_LAST]
                rows = list(until_it_runs(considered, ReleaseReader(index, limits, progress.at), [environment]))
        finally:
            index.close()
    except FatpatchError as error:
        return Remedy(
            title, f"fatpatch releases {name} --gpu {environment.device.target}", None, f"the index gives no answer: {error.message}"
        )
    runs = next((row for row in rows if row.answers and row.answers[0].works), None)
    if runs is None:
        return Remedy(title, None, False, f"none of the last {len(rows)} of {name} runs, by the headers of their images")
    return Remedy(
        title, project.command.format(runs.version), True, f"{runs.version} is the newest that runs, by the headers of its images"
    )
