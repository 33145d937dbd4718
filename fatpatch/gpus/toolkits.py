"""What each CUDA release compiles: targets, defaults, cubin format (sources: data/README.md)."""

from __future__ import annotations

import functools
import re
from typing import Literal

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.tables import table, version_key


class Toolkit(NamedTuple):
    """One CUDA release. ``sms`` are plain SM numbers, ``suffixed`` such as "90a".

    ``compression`` is the codec that fatbinary takes by default for PTX and debug images, ``compression_how`` and
    ``expansion_how`` say whether that was measured. What is not known is None or empty.
    """

    cuda: str
    ptx: str
    sms: tuple[int, ...]
    suffixed: tuple[str, ...]
    default_arch: int | None
    compression: str | None
    compression_how: str
    expansion_how: str
    min_driver: tuple[str, str] | None
    note: str


@functools.lru_cache(maxsize=1)
def releases() -> tuple[Toolkit, ...]:
    """Every CUDA version of the table, oldest first; 12.7, which was a driver only, has no ``sms``."""
    return tuple(_toolkit(row) for row in table("toolkits"))


def toolkit(cuda: str) -> Toolkit | None:
    """The release "12.4"; None when it is not in the table."""
    return next((release for release in releases() if release.cuda == cuda.strip()), None)


@functools.lru_cache(maxsize=1024)
def toolkits_for(target: str) -> tuple[str, str] | None:
    """The first and the last CUDA release that compile ``sm_61``, ``compute_90a``, ``sm_120f``; None when none does.

    The table starts at 6.5, which then stands for "6.5 or older", and the last one it knows for "still supported".
    """
    found = [release.cuda for release in releases() if compiles(release, target)]
    return (found[0], found[-1]) if found else None


def newest_toolkit_for(target: str) -> str | None:
    """The newest release that compiles a target: 12.9 for sm_61."""
    found = toolkits_for(target)
    return None if found is None else found[1]


def is_newest(cuda: str) -> bool:
    """Whether nothing newer is known: what it compiles is still supported."""
    return releases()[-1].cuda == cuda


def expansion(option: Literal["all", "all-major"], cuda: str) -> tuple[str, ...] | None:
    """What ``nvcc -arch=all`` or ``-arch=all-major`` compiles; None where the release has no such option or none is known.

    Machine code for every target, or for the lowest of each major, and PTX for the highest of those lowest ones (measured by
    nvcc --dryrun for 11.8, 12.4 and 13.0 on, the same rule for the rest).
    """
    release = toolkit(cuda)
    if release is None or not release.expansion_how:
        return None
    majors: dict[int, int] = {}
    for arch in release.sms:
        majors.setdefault(arch // 10, arch)
    chosen = release.sms if option == "all" else tuple(majors.values())
    return (*(f"sm_{arch}" for arch in chosen), f"compute_{max(majors.values())}")


def default_arch(cuda: str) -> str | None:
    """The target of nvcc without -arch: sm_52 for 12.4."""
    release = toolkit(cuda)
    return None if release is None or release.default_arch is None else f"sm_{release.default_arch}"


def known_archs() -> frozenset[int]:
    """Every SM number that a release of the table compiles."""
    return frozenset(arch for release in releases() for arch in release.sms)


def compiles(release: Toolkit, target: str) -> bool:
    """Whether a release compiles ``sm_61``, ``compute_90a``, ``sm_120f``."""
    found = re.fullmatch(r"(?:sm|compute|lto)_(\d{2,3})([af]?)", target.strip().lower(), re.ASCII)
    if found is None:
        return False
    return found[1] + found[2] in release.suffixed if found[2] else int(found[1]) in release.sms


def _toolkit(row: dict[str, str]) -> Toolkit:
    return Toolkit(
        cuda=row["cuda"],
        ptx=row["ptx"],
        sms=tuple(int(part) for part in row["sms"].split()),
        suffixed=tuple(row["suffixed"].split()),
        default_arch=int(row["default_arch"]) if row["default_arch"] else None,
        compression=row["compression"] or None,
        compression_how=row["compression_how"],
        expansion_how=row["expansion_how"],
        min_driver=(row["min_linux"], row["min_windows"]) if row["min_linux"] else None,
        note=row["note"],
    )


def at_most(cuda: str) -> Toolkit | None:
    """The newest release with targets that is not above a CUDA version: 12.6 for 12.7."""
    wanted = version_key(cuda)
    return next((release for release in reversed(releases()) if release.sms and version_key(release.cuda) <= wanted), None)
