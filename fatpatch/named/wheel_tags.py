"""Which wheels an interpreter takes, and in which order (PyPA "Platform compatibility tags"; PEP 600 for manylinux)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fatpatch.base.errors import InputError
from fatpatch.base.patterns import lazy_pattern

if TYPE_CHECKING:
    from packaging.tags import Tag

_SHORT: Final = {
    "linux": "manylinux_2_39_x86_64",
    "linux_x86_64": "manylinux_2_39_x86_64",
    "linux_aarch64": "manylinux_2_39_aarch64",
    "win": "win_amd64",
    "windows": "win_amd64",
}
"""Words for a platform that are none of its tags."""

_MANYLINUX: Final = lazy_pattern(r"manylinux_2_(\d{1,2})_(\w+)")
_OLD: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_MACOS: Final = lazy_pattern(r"macosx_(\d{1,2})_(\d{1,2})_(\w+)")
_PLATFORM: Final = lazy_pattern(r"[a-z0-9_]{3,40}\Z")
_VERSION: Final = lazy_pattern(r"3\.?(\d{1,2})(?:\.\d{1,2})?\Z")


def wanted_tags(platform: str | None, python_version: str | None) -> list[Tag]:
    """The tags, the best first: of the Python that runs this, or for another platform or version. InputError for what is none."""
    from packaging import tags

    if platform is None and python_version is None:
        return list(tags.sys_tags())
    minor = python_minor(python_version)
    if platform is None:
        platforms = list(tags.platform_tags())
    else:
        name = _SHORT.get(platform.lower(), platform.lower().replace("-", "_").replace(".", "_"))
        if not _PLATFORM.fullmatch(name):
            raise InputError(f"{platform[:40]!r} is not a platform tag", hint="such as manylinux_2_28_x86_64, win_amd64, linux")
        platforms = list(_expanded(name))
    version = (3, minor)
    found = [*tags.cpython_tags(version, platforms=platforms), *tags.compatible_tags(version, f"cp3{minor}", platforms)]
    return list(dict.fromkeys(found))


def python_minor(version: str | None) -> int:
    """11 of "3.11"; of None that of the Python that runs this. InputError for another major version."""
    import sys

    if version is None:
        return sys.version_info.minor
    found = _VERSION.fullmatch(version)
    if found is None:
        raise InputError(f"{version[:20]!r} is not a version of Python 3", hint="such as 3.11")
    return int(found[1])


def _expanded(platform: str) -> Iterator[str]:
    """The platform and the older ones whose wheels it takes."""
    yield platform
    if found := _MANYLINUX.fullmatch(platform):
        for minor in range(int(found[1]), 4, -1):
            yield f"manylinux_2_{minor}_{found[2]}"
            if minor in _OLD:
                yield f"{_OLD[minor]}_{found[2]}"
        yield f"linux_{found[2]}"
    elif platform.startswith("manylinux"):
        old = next((minor for minor, name in _OLD.items() if platform.startswith(f"{name}_")), None)
        if old is not None:
            yield from _expanded(f"manylinux_2_{old}_{platform.split('_', 1)[1]}")
    elif found := _MACOS.fullmatch(platform):
        from packaging.tags import mac_platforms

        yield from mac_platforms((int(found[1]), int(found[2])), found[3])
