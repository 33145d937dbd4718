"""A package on an npm registry: its versions, and of each the tarballs that hold its libraries."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote

from fatpatch.base.errors import FormatError, InputError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.named.pip_settings import with_credentials
from fatpatch.named.unit import NamedUnit, NamingChoices
from fatpatch.remote.address import HTTP, scheme_of, shown_address
from fatpatch.remote.index import page_text

NPM: Final = "https://registry.npmjs.org/"
_WANTED: Final = lazy_pattern(r"((?:@[a-z0-9~-][a-z0-9._~-]{0,100}/)?[A-Za-z0-9~-][A-Za-z0-9._~-]{0,100})(?:@([0-9A-Za-z.+-]{1,60}))?\Z")
_VERSION: Final = lazy_pattern(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})(?:-([0-9A-Za-z.-]{1,60}))?(?:\+[0-9A-Za-z.-]{1,60})?\Z")
_ACCEPT: Final = "application/json"
_MOST_PARTS: Final = 64


class NodeRelease(NamedTuple):
    """One version of a package: its tarball, and the versions of the packages for platforms that it may install (optional ones)."""

    version: str
    tarball: str
    optional: tuple[tuple[str, str], ...]


def parsed(wanted: str) -> tuple[str, str | None]:
    """(name, version or None) of ``NAME`` or ``NAME@VERSION``. InputError for another text."""
    found = _WANTED.fullmatch(wanted)
    if found is None:
        raise InputError("expected the name of a package", locator=f"npm:{wanted[:80]}", hint="such as npm:node-llama-cpp@3.6.0")
    return found[1], found[2]


def package_unit(wanted: str, choices: NamingChoices) -> NamedUnit:
    """The newest version of a package, or the one that is named, with its packages for the platform, as one unit."""
    name, version = parsed(wanted)
    found = versions_of(name, choices)
    stable = [each for each in found if "-" not in each.version] or found
    release = stable[0] if version is None else next((each for each in found if each.version == version), None)
    if release is None:
        raise InputError("there is no such version", locator=f"npm:{wanted}", hint=f"the newest is {stable[0].version}")
    return release_unit(name, release, choices)


def release_unit(name: str, release: NodeRelease, choices: NamingChoices) -> NamedUnit:
    """A version with its tarballs: its own, and those of its packages for the platform that may hold GPU code."""
    shown = f"npm:{name}@{release.version}"
    parts = [NamedUnit(f"{shown}/{_file(release.tarball)}", with_credentials(release.tarball))]
    for other, version in release.optional[:_MOST_PARTS]:
        if not _for_platform(other, choices.platform):
            continue
        found = next((each for each in versions_of(other, choices) if each.version == version), None)
        if found is not None:
            parts.append(NamedUnit(f"{shown}/{other.replace('/', '.')}-{version}.tgz", with_credentials(found.tarball)))
    return parts[0] if len(parts) == 1 else NamedUnit(shown, parts=tuple(parts))


def versions_of(name: str, choices: NamingChoices) -> list[NodeRelease]:
    """The versions, the newest first. InputError when the registry has none."""
    registry = choices.index_url or _configured() or NPM
    page = f"{registry.rstrip('/')}/{quote(name, safe='@')}"
    if scheme_of(page) not in HTTP:
        raise InputError("is not an npm registry", locator=shown_address(registry), hint="give a URL such as https://registry.npmjs.org/")
    text = page_text(with_credentials(page), choices.remote, _ACCEPT)
    try:
        document: Any = json.loads(text)
        rows = list(_rows(document, name))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError("is not an npm registry document", locator=shown_address(page)) from error
    if not rows:
        raise InputError("has no versions", locator=f"npm:{name}", hint="look at the name")
    return sorted(rows, key=lambda each: _order(each.version), reverse=True)


def _configured() -> str | None:
    """The registry of npm's environment variables, which npm reads in any case."""
    return next((value for key, value in os.environ.items() if key.lower() == "npm_config_registry" and value), None)


def _rows(document: Any, name: str) -> Iterator[NodeRelease]:
    if document.get("name") != name:  # a registry that serves another package
        return
    for version, row in document["versions"].items():
        tarball = str(row["dist"]["tarball"])
        if _VERSION.fullmatch(str(version)) and scheme_of(tarball) in HTTP:
            optional = tuple((str(key), str(value)) for key, value in (row.get("optionalDependencies") or {}).items())
            yield NodeRelease(str(version), tarball, optional)


def _order(version: str) -> tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]:
    """By semantic versioning: a version with a suffix comes before the one without."""
    found = _VERSION.fullmatch(version)
    assert found is not None
    parts = tuple((not each.isdigit(), int(each) if each.isdigit() else 0, each) for each in (found[4] or "").split("."))
    return int(found[1]), int(found[2]), int(found[3]), found[4] is None, parts


def _for_platform(package: str, platform: str | None) -> bool:
    """Whether a package for a platform is for ours, by the words that such names have: linux-x64-cuda, win-arm64."""
    words = set(re.split(r"[^a-z0-9]+", package.lower()))
    wanted = (platform or "linux").lower()
    system = {"win", "win32", "windows"} if wanted.startswith("win") else {"linux"}
    machine = {"arm64", "aarch64"} if "arm64" in wanted or "aarch64" in wanted else {"x64", "x86", "amd64"}
    others = {"mac", "darwin", "macos", "win", "win32", "windows", "linux", "freebsd", "android"} - system
    return bool(words & system) and bool(words & machine) and not words & others and not words & {"vulkan", "metal", "musl"}


def _file(address: str) -> str:
    return shown_address(address).rstrip("/").rsplit("/", 1)[-1]
