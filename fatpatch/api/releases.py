"""Which releases of a project run on a GPU, by the headers of their images, which an index keeps from run to run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from fatpatch.api.gpus import Environment
from fatpatch.api.queries import opened_index
from fatpatch.base.errors import EditError, FatpatchError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.writing import make_folder
from fatpatch.index.projects import Project, projects, python_project
from fatpatch.index.releases import JudgedRelease, ReleaseAnswer, ReleaseReader, by_bisection, every, until_it_runs
from fatpatch.named.reading import silent
from fatpatch.named.unit import NamingChoices
from fatpatch.scan.walk import Progress
from fatpatch.verdicts.outcome import OUTCOMES
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.words.report import device_words

__all__ = [
    "OUTCOMES",
    "JudgedProject",
    "JudgedRelease",
    "ReleaseAnswer",
    "ReleaseSearch",
    "ReleasesFound",
    "ReleasesRequest",
    "device_words",
    "judged_releases",
]

_PROJECTS: Final = (
    lazy_pattern(r"pypi:([A-Za-z0-9._-]+)=="),
    lazy_pattern(r"([A-Za-z0-9._]+)-[^-]+(?:-[^-]+){3,4}\.whl\Z"),
    lazy_pattern(r"([A-Za-z0-9._-]+) \d\S*\Z"),
)
_LAST: Final = 20
_SEARCHES = {"every": every, "newest": until_it_runs, "bisect": by_bisection}


class ReleasesRequest(NamedTuple):
    """``search``: every release, up to the newest that runs, or by bisection, of the ``last``; ``whole``: every library, not samples.

    ``again``: what the index has is read anew.
    """

    search: str = "every"
    last: int = _LAST
    prereleases: bool = False
    whole: bool = False
    again: bool = False


class JudgedProject(NamedTuple):
    """A project with its releases, the newest first. ``older``: how many more it has that were not considered."""

    project: Project
    rows: tuple[JudgedRelease, ...]
    older: int

    def newest(self, gpu: int) -> JudgedRelease | None:
        """The first release that runs on a GPU."""
        return next((row for row in self.rows if row.answers and row.answers[gpu].works), None)


class ReleasesFound(NamedTuple):
    """The answer for all projects."""

    environments: tuple[Environment, ...]
    projects: tuple[JudgedProject, ...]

    @property
    def rows(self) -> list[JudgedRelease]:
        """Every release of every project."""
        return [row for each in self.projects for row in each.rows]

    @property
    def works(self) -> bool:
        """Whether each GPU has a release of each project that runs."""
        return all(each.newest(gpu) is not None for each in self.projects for gpu in range(len(self.environments)))


def releases_index() -> str:
    """The path of the user's own index of releases; its folder is made. InputError where that cannot be."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or os.path.expanduser("~")
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(home, "fatpatch")
    try:
        make_folder(folder)
    except EditError as error:
        raise InputError(error.message, locator=folder, hint="name an index with --db") from error
    return os.path.join(folder, "releases.sqlite")


class ReleaseSearch(NamedTuple):
    """Where releases are looked for, and kept: ``database``, the user's own index without one; ``progress`` is entered for each search."""

    choices: NamingChoices
    limits: Limits
    progress: Callable[[str], AbstractContextManager[Progress]] = silent
    database: str | None = None

    def remedy(self, shown: str, environment: Environment) -> Remedy | None:
        """The newest of the last releases whose headers say that it runs; None where ``shown`` is no release of a project.

        What an index does not answer is a remedy of which nothing is known.
        """
        name = project_of(shown)
        if name is None:
            return None
        title = "another release"
        try:
            project = python_project(name, self.choices, prereleases=False)
            found = self.judged([project], [environment], ReleasesRequest("newest"), f"releases of {name}")[0]
        except FatpatchError as error:
            command = f"fatpatch releases {name} --gpu {environment.device.target}"
            return Remedy(title, command, None, f"the index gives no answer: {error.message}")
        runs = found.newest(0)
        if runs is None:
            return Remedy(title, None, False, f"none of the last {len(found.rows)} of {name} runs, by the headers of their images")
        why = f"{runs.version} is the newest that runs, by the headers of its images"
        return Remedy(title, project.command.format(runs.version), True, why)

    def judged(
        self, named: Sequence[Project], environments: Sequence[Environment], request: ReleasesRequest, title: str
    ) -> tuple[JudgedProject, ...]:
        """The releases of each project on every GPU."""
        found = []
        with opened_index(self.database or releases_index(), create=True) as index, self.progress(title) as progress:
            reader = ReleaseReader(index, self.limits, progress, again=request.again, samples=not request.whole)
            for project in named:
                considered = project.releases[: request.last]
                rows = tuple(_SEARCHES[request.search](considered, reader, environments))
                found.append(JudgedProject(project, rows, len(project.releases) - len(considered)))
        return tuple(found)


def judged_releases(
    names: Sequence[str], shown: Sequence[str], environments: Sequence[Environment], request: ReleasesRequest, search: ReleaseSearch
) -> ReleasesFound:
    """Judge the releases of every project that is named. InputError for a name that no index has."""
    named = projects(names, shown, search.choices, prereleases=request.prereleases)
    return ReleasesFound(tuple(environments), search.judged(named, environments, request, "releases"))


def project_of(shown: str) -> str | None:
    """The project of ``pypi:NAME==VERSION/...``, of a wheel, or of an installed ``NAME VERSION``; None of anything else."""
    for name in (shown, file_name(shown)):
        for pattern in _PROJECTS:
            if found := pattern.match(name):
                return found[1]
    return None
