"""A project on Python package indexes: its releases, and of each the wheel that pip would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.named.pip_settings import pip_indexes, with_credentials
from fatpatch.named.unit import NamedUnit, NamingChoices
from fatpatch.named.wheel_tags import python_minor, wanted_tags
from fatpatch.remote.address import shown_address
from fatpatch.remote.index import IndexFile, project_files

if TYPE_CHECKING:
    from packaging.version import Version

_WANTED: Final = lazy_pattern(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9])?)(?:==([A-Za-z0-9.!+_-]{1,60}))?\Z")


class WheelRelease(NamedTuple):
    """One version of a project with the wheel that pip would take of it."""

    version: Version
    wheel: IndexFile
    yanked: bool

    @property
    def shown(self) -> str:
        """``0.49.2``."""
        return str(self.version)


def parsed(wanted: str) -> tuple[str, str | None]:
    """(name, version or None) of ``NAME`` or ``NAME==VERSION``. InputError for another text."""
    found = _WANTED.fullmatch(wanted)
    if found is None:
        raise InputError("expected the name of a project", locator=f"pypi:{wanted[:80]}", hint="such as pypi:torch or pypi:torch==2.9.0")
    return found[1], found[2]


def wheel_unit(wanted: str, choices: NamingChoices) -> NamedUnit:
    """The wheel that pip would take for ``NAME`` or ``NAME==VERSION``, as a unit. InputError where there is none."""
    name, version = parsed(wanted)
    found = releases_of(name, choices, version)
    stable = [each for each in found if not each.version.is_prerelease] or found
    return unit_of(name, stable[0])


def unit_of(name: str, release: WheelRelease) -> NamedUnit:
    """The wheel of a release, with what it is called."""
    return NamedUnit(f"pypi:{name}=={release.shown}/{release.wheel.name}", with_credentials(release.wheel.address))


def releases_of(name: str, choices: NamingChoices, version: str | None = None) -> list[WheelRelease]:
    """The releases with a wheel for the platform, the newest first; yanked ones only where their version is asked for.

    InputError when no index has the project, or none of its wheels fits.
    """
    from packaging.version import InvalidVersion, Version

    files = files_of_project(name, choices)
    order = {str(tag): rank for rank, tag in enumerate(wanted_tags(choices.platform, choices.python_version))}
    minor = python_minor(choices.python_version)
    try:
        pinned = None if version is None else Version(version)
    except InvalidVersion as error:
        raise InputError(f"{version!r} is not a version", locator=f"pypi:{name}", hint="such as 2.9.0") from error
    best: dict[Version, tuple[tuple[int, int], IndexFile]] = {}
    for each in files:
        if not each.name.endswith(".whl") or not _takes(each.requires_python, minor) or (each.yanked and pinned is None):
            continue
        found = _ranked(each.name, order)
        if found is None or pinned not in (None, found[0]):
            continue
        if found[0] not in best or found[1] < best[found[0]][0]:
            best[found[0]] = (found[1], each)
    if not best:
        raise _no_wheel(name, files, choices, version)
    return [WheelRelease(each, best[each][1], best[each][1].yanked) for each in sorted(best, reverse=True)]


def files_of_project(name: str, choices: NamingChoices) -> list[IndexFile]:
    """The files of a project on all indexes that pip would ask. InputError when none of them has it."""
    indexes = pip_indexes() if choices.index_url is None else (choices.index_url,)
    if not indexes:
        raise InputError("pip is configured to use no index", locator=f"pypi:{name}", hint="name one with --index URL")
    files: list[IndexFile] = []
    trouble: FatpatchError | None = None
    for index in indexes:
        try:
            files += project_files(with_credentials(index), name, choices.remote)
        except FatpatchError as error:
            trouble = trouble or error
    if not files:
        asked = ", ".join(shown_address(index) for index in indexes)
        why = f": {trouble.message}" if trouble is not None else ""
        raise InputError(f"no index has it ({asked}){why}", locator=f"pypi:{name}", hint="look at the name, or give --index URL")
    return list({each.address: each for each in files}.values())


def _ranked(file: str, order: dict[str, int]) -> tuple[Version, tuple[int, int]] | None:
    """(version, rank: the lower the better) of a wheel; None where it is none that fits."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename
    from packaging.version import InvalidVersion

    try:
        _, version, build, tags = parse_wheel_filename(file)
    except (InvalidWheelFilename, InvalidVersion):
        return None
    ranks = [order[str(tag)] for tag in tags if str(tag) in order]
    return (version, (min(ranks), -(build[0] if build else 0))) if ranks else None


def _takes(requires: str, minor: int) -> bool:
    """Whether a file is for the Python version, as far as its index says."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return not requires or SpecifierSet(requires).contains(f"3.{minor}.99", prereleases=True)
    except InvalidSpecifier:
        return True


def _no_wheel(name: str, files: Sequence[IndexFile], choices: NamingChoices, version: str | None) -> InputError:
    wheels = [each.name for each in files if each.name.endswith(".whl") and (version is None or each.name.split("-")[1] == version)]
    what = f"pypi:{name}" if version is None else f"pypi:{name}=={version}"
    if not wheels:
        return InputError("has no wheels" if version is None else "there is no wheel of this version", locator=what)
    platforms = sorted({file.removesuffix(".whl").rsplit("-", 1)[-1] for file in wheels})[:6]
    fits = f"{choices.platform or 'this platform'} and Python 3.{python_minor(choices.python_version)}"
    return InputError(
        f"has no wheel for {fits}", locator=what, hint=f"--platform, --python-version; there are wheels for {', '.join(platforms)}"
    )
