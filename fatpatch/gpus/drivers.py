"""NVIDIA drivers: CUDA version, highest PTX version, the GPUs they drive, zstd (sources: data/README.md)."""

from __future__ import annotations

import functools
import re

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.generations import generation
from fatpatch.gpus.tables import table
from fatpatch.gpus.toolkits import at_most, releases, toolkit

_JETSON_LINUX = frozenset({32, 53, 62, 72, 87, 88})  # their driver comes with Jetson Linux, which has other version numbers
_LAST_ON_JETSON = {53: "10.2", 62: "10.2", 72: "11.4"}
_EXAMPLE = "write for example 535.154, 552.22, or 31.0.15.5222 as Windows shows it"


class Driver(NamedTuple):
    """What is known of a driver by its version.

    ``branch``: "535". ``ptx``: the highest PTX version its compiler takes. ``zstd``: whether it reads zstd-compressed fatbin
    entries, None when not known. ``oldest_arch``: the lowest SM number it drives; ``newest_arch``: the highest that its CUDA
    version knows. ``note``: what is not certain, empty when all is.
    """

    version: str
    branch: str
    cuda: str
    ptx: str
    zstd: bool | None
    oldest_generation: str
    oldest_arch: int
    newest_arch: int | None
    note: str


class _Branch(NamedTuple):
    numbers: tuple[int, ...]
    linux: str
    windows: str
    cuda: str
    oldest_arch: int
    zstd: bool | None
    note: str


def driver(version: str) -> Driver:
    """The driver "535.154", "552.22" or "31.0.15.5222" (Windows' own form). InputError for other text and versions below 340.

    "12.8" is the first driver of that CUDA version, which nvidia-smi shows beside the driver's own.

    The first number decides, as a branch keeps its CUDA version; Windows counts a few numbers up within a branch.
    """
    if (shown := re.fullmatch(r"(?:cuda[ -]?)?(\d{1,2}\.\d)", version.strip().lower())) is not None:
        return _of_release(shown[1])
    plain = plain_version(version)
    if plain is None:
        raise InputError(f"{version[:60]!r} is not a driver version", hint=_EXAMPLE)
    number = int(plain.split(".")[0])
    branches = _branches()
    row = next((row for row in reversed(branches) if row.numbers[0] <= number), None)
    if row is None:
        raise InputError(f"driver {plain} is older than any known here", hint=f"the oldest is {branches[0].numbers[0]}; {_EXAMPLE}")
    note = row.note
    if number > branches[-1].numbers[-1]:
        newest = branches[-1].numbers[-1]
        note = f"newer than the table, which ends with {newest}: what is said of {newest} holds, it may be able to do more"
    release = toolkit(row.cuda)
    known = at_most(row.cuda)
    return Driver(
        version=plain,
        branch=str(number),
        cuda=row.cuda,
        ptx="" if release is None else release.ptx,
        zstd=row.zstd,
        oldest_generation=generation(row.oldest_arch),
        oldest_arch=row.oldest_arch,
        newest_arch=None if known is None else max(known.sms),
        note=note,
    )


def _of_release(cuda: str) -> Driver:
    """The first driver whose CUDA version is ``cuda``."""
    row = next((row for row in _branches() if row.cuda == cuda), None)
    if row is None:
        raise InputError(f"no driver is known whose CUDA version is {cuda}", hint=_EXAMPLE)
    found = driver(row.linux)
    return found._replace(note="; ".join(filter(None, (f"the first driver of CUDA {cuda}", found.note))))


def plain_version(text: str) -> str | None:
    """A version as NVIDIA writes it: "552.22" for Windows' "31.0.15.5222"; None when the text is not a version."""
    text = text.strip()
    if re.fullmatch(r"\d{1,2}\.\d{1,2}\.\d{1,2}\.\d{4}", text, re.ASCII):
        digits = text.replace(".", "")[-5:]
        return f"{digits[:3]}.{digits[3:]}"
    return text if re.fullmatch(r"\d{3,4}(?:\.\d{1,4}){0,3}", text, re.ASCII) else None


def first_driver_for_cuda(cuda: str) -> tuple[str, str] | None:
    """The lowest driver, on Linux and on Windows, of a CUDA version; a bare branch where no more is known. None when nothing is."""
    return next((_firsts(row) for row in _branches() if row.cuda == cuda), None)


def first_driver_for_ptx(isa: str) -> tuple[str, str] | None:
    """The lowest driver, on Linux and on Windows, that compiles a PTX version: 550.54.14 for "8.4". None when it is not known."""
    cuda = cuda_of_ptx(isa)
    return None if cuda is None else first_driver_for_cuda(cuda)


def cuda_of_ptx(isa: str) -> str | None:
    """The first CUDA version that knows a PTX version: "8.4" is 12.4. None for a version that is not in the table."""
    return next((release.cuda for release in releases() if release.ptx == isa), None)


def ptx_of_driver(version: str) -> str | None:
    """The highest PTX version that a driver compiles: "535.154" is 8.2. None when the table does not know the version."""
    try:
        return driver(version).ptx
    except InputError:
        return None


def first_zstd_driver() -> tuple[str, str]:
    """The lowest driver, on Linux and on Windows, that reads zstd-compressed fatbin entries."""
    return next(_firsts(row) for row in _branches() if row.zstd)


def first_zstd_cuda() -> str:
    """The CUDA version of the drivers from which on zstd-compressed entries are read."""
    return next(row.cuda for row in _branches() if row.zstd)


def on_jetson_linux(arch: int) -> bool:
    """Whether the driver of an SM number comes with Jetson Linux alone."""
    return arch in _JETSON_LINUX


def last_cuda_on_jetson(arch: int) -> str | None:
    """The CUDA of the last Jetson Linux for an SM number (from memory: JetPack 4.6 and 5.1); None where it goes on, or off Jetson."""
    return _LAST_ON_JETSON.get(arch)


@functools.lru_cache(maxsize=256)
def drivers_for_arch(arch: int) -> tuple[str, str | None] | None:
    """The first known driver for an SM number, on Linux, and the last branch, None for "still driven".

    The first one is that of the CUDA version which first compiles for the SM number; the table starts at 340. None for Jetson
    modules up to Orin, whose driver comes with Jetson Linux, and for numbers that no driver of the table knows.
    """
    if arch in _JETSON_LINUX:
        return None
    branches = _branches()
    fits = [row for row in branches if row.oldest_arch <= arch and _known_by(arch, row.cuda)]
    if not fits:
        return None
    return fits[0].linux, None if fits[-1] is branches[-1] else str(fits[-1].numbers[0])


def last_branch(arch: int) -> str | None:
    """The last branch that drives an SM number; None when the newest does, and as for ``drivers_for_arch``."""
    known = drivers_for_arch(arch)
    return None if known is None else known[1]


@functools.lru_cache(maxsize=256)
def first_driver_for_arch(arch: int) -> tuple[str, str] | None:
    """The first known driver for an SM number, on Linux and on Windows; None as for ``drivers_for_arch``."""
    if arch in _JETSON_LINUX:
        return None
    return next((_firsts(row) for row in _branches() if row.oldest_arch <= arch and _known_by(arch, row.cuda)), None)


def minimum_for_toolkit(cuda: str) -> tuple[str, str] | None:
    """The oldest driver, on Linux and on Windows, that runs programs of a release: 525.60.13 and 527.41 for all of 12.

    That is for machine code; PTX needs a driver that knows its version. None when it is not known.
    """
    release = toolkit(cuda)
    return first_driver_for_cuda(cuda) if release is None or release.min_driver is None else release.min_driver


def _known_by(arch: int, cuda: str) -> bool:
    """Whether a release up to a CUDA version compiles for an SM number (a newer one may have dropped it, its driver did not)."""
    for release in releases():
        if arch in release.sms:
            return True
        if release.cuda == cuda:
            return False
    return False


def _firsts(row: _Branch) -> tuple[str, str]:
    return row.linux, row.windows or row.linux.split(".")[0]


@functools.lru_cache(maxsize=1)
def _branches() -> tuple[_Branch, ...]:
    """The branches, oldest first."""
    return tuple(
        _Branch(
            numbers=tuple(int(part) for part in row["branches"].split()),
            linux=row["linux"],
            windows=row["windows"],
            cuda=row["cuda"],
            oldest_arch=int(row["oldest_arch"]),
            zstd={"yes": True, "no": False}.get(row["zstd"]),
            note=row["note"],
        )
        for row in table("drivers")
    )
