"""The releases of what a user named: a project of a package index, an npm package, or files and addresses that are releases themselves."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from fatpatch.base.errors import InputError
from fatpatch.base.locator import file_name
from fatpatch.base.records import NamedTuple
from fatpatch.index.releases import ReleaseToJudge
from fatpatch.named import npm, pypi
from fatpatch.named.resolve import is_package
from fatpatch.named.unit import NamedUnit, NamingChoices


class Project(NamedTuple):
    """``name`` as a user wrote it; ``what``: which of its files are meant, in words; its releases, the newest first."""

    name: str
    what: str
    releases: tuple[ReleaseToJudge, ...]
    command: str = ""
    """How a release is installed, with {} for its version; empty where nothing installs it."""


def projects(words: Sequence[str], shown: Sequence[str], choices: NamingChoices, *, prereleases: bool) -> list[Project]:
    """A project for each name, and one of all files and addresses together, in their order. InputError for a name that no index has."""
    found: list[Project] = []
    files: list[ReleaseToJudge] = []
    for word, name in zip(words, shown, strict=True):
        if word.startswith("npm:"):
            found.append(_npm(word.removeprefix("npm:"), choices, prereleases=prereleases))
        elif word.startswith("pypi:") or is_package(word):
            found.append(python_project(word.removeprefix("pypi:"), choices, prereleases=prereleases))
        else:
            files.append(ReleaseToJudge(file_name(name), name, partial(NamedUnit, name, word)))
    if files:
        found.append(Project("files" if len(files) > 1 else files[0].file, "as they were given", tuple(files)))
    return found


def python_project(name: str, choices: NamingChoices, *, prereleases: bool) -> Project:
    """The releases of a Python project that have a wheel for the platform. InputError where there are none."""
    plain, version = pypi.parsed(name)
    if version is not None:
        raise InputError("names one release", locator=f"pypi:{name}", hint="give the name alone")
    every = pypi.releases_of(plain, choices)
    rows = [each for each in every if prereleases or not each.version.is_prerelease] or every
    releases = [ReleaseToJudge(each.shown, each.wheel.name, partial(pypi.unit_of, plain, each)) for each in rows]
    python = choices.python_version or "this Python"
    what = f"wheels for {choices.platform or 'this platform'} and {python if python == 'this Python' else f'Python {python}'}"
    return Project(f"pypi:{plain}", what, tuple(releases), f"pip install {plain}=={{}}")


def _npm(name: str, choices: NamingChoices, *, prereleases: bool) -> Project:
    plain, version = npm.parsed(name)
    if version is not None:
        raise InputError("names one release", locator=f"npm:{name}", hint="give the name alone")
    every = npm.versions_of(plain, choices)
    rows = [each for each in every if prereleases or "-" not in each.version] or every
    releases = [ReleaseToJudge(each.version, f"{plain}@{each.version}", partial(npm.release_unit, plain, each, choices)) for each in rows]
    return Project(f"npm:{plain}", f"packages for {choices.platform or 'linux'}", tuple(releases), f"npm install {plain}@{{}}")
