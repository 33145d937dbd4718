"""One run of ``releases``: the projects, the GPUs, the index that keeps what was read."""

from __future__ import annotations

from collections.abc import Sequence

import click

from fatpatch.base.errors import InputError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.gpu_options import environments
from fatpatch.commands._shared.kept import releases_index
from fatpatch.commands._shared.progress import Progress
from fatpatch.index.database import Database
from fatpatch.index.projects import Project, projects
from fatpatch.index.releases import JudgedRelease, ReleaseReader, by_bisection, every, until_it_runs
from fatpatch.model.kinds import Vendor
from fatpatch.named.unit import NamingChoices
from fatpatch.verdicts.environment import Environment

_SEARCHES = {"every": every, "newest": until_it_runs, "bisect": by_bisection}
_MANY = 3
_NOTHING_RUNS = 1


class ReleasesRequest(NamedTuple):
    """What the options ask for; ``search``: every release, up to the newest that runs, or by bisection."""

    gpus: tuple[str, ...]
    driver: str | None
    search: str
    last: int
    prereleases: bool
    whole: bool
    again: bool


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
    code: int


def judged(
    names: Sequence[str], shown: Sequence[str], request: ReleasesRequest, choices: NamingChoices, database: str | None, limits: Limits
) -> ReleasesFound:
    """Judge the releases of every project; what was fetched is reported on standard error."""
    asked = environments(request.gpus, request.driver)
    for environment in asked:
        if environment.device.vendor == Vendor.NVIDIA and environment.device.arch is None:
            raise click.UsageError(f"{environment.device.name} has no target")
    found = []
    index = Database(database or releases_index(), create=True)
    try:
        with Progress("releases") as progress:
            reader = ReleaseReader(index, limits, progress.at, again=request.again, samples=not request.whole)
            for project in projects(names, shown, choices, prereleases=request.prereleases):
                considered = project.releases[: request.last]
                rows = tuple(_SEARCHES[request.search](considered, reader, asked))
                found.append(JudgedProject(project, rows, len(project.releases) - len(considered)))
    finally:
        index.close()
    every_row = [row for each in found for row in each.rows]
    _report(every_row)
    runs = all(each.newest(gpu) is not None for each in found for gpu in range(len(asked)))
    unread = bool(every_row) and all(row.error for row in every_row)
    return ReleasesFound(asked, tuple(found), InputError.exit_code if unread else 0 if runs else _NOTHING_RUNS)


def _report(rows: Sequence[JudgedRelease]) -> None:
    from fatpatch.base.words import plural, size

    opened = [row for row in rows if not (row.kept or row.assumed or row.error)]
    kept = sum(row.kept for row in rows)
    most = max((row.fetched for row in opened), default=0)
    total = sum(row.fetched for row in opened)
    each = f", at most {size(most)} for one" if len(opened) > 1 else ""
    quiet.note(f"{plural(len(opened), 'release')} opened, {size(total)} fetched{each}; {kept} known from the index")
    errors = [row for row in rows if row.error]
    for row in errors[:_MANY]:
        quiet.note(f"  {row.file}: {row.error}")
    if len(errors) > _MANY:
        quiet.note(f"  and {len(errors) - _MANY} more that cannot be read")
