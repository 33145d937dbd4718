"""Which releases of a project run on a GPU: each read once by its headers, kept in an index, and judged from there for any GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from fatpatch import __version__
from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Fetched, Limits
from fatpatch.base.records import NamedTuple
from fatpatch.index.database import Database
from fatpatch.index.record import KeptRelease
from fatpatch.index.sampled_packages import SampledPackages
from fatpatch.model.kinds import Vendor
from fatpatch.named.unit import NamedUnit, opened_unit
from fatpatch.remote.address import scheme_of, shown_address
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.header_doctor import HeaderDoctor
from fatpatch.verdicts.header_record import HeaderRecord, record_of, tree_of
from fatpatch.verdicts.module import JIT
from fatpatch.verdicts.outcome import outcome_of, works
from fatpatch.verdicts.results import FileVerdict

OnRead = Callable[[str, int, int], None]


class ReleaseAnswer(NamedTuple):
    """How a release fares on a GPU. ``outcome``: a key of OUTCOMES; ``compiles``: the driver compiles PTX; ``targets`` that are loaded."""

    outcome: str
    works: bool
    compiles: bool
    targets: tuple[str, ...]


class JudgedRelease(NamedTuple):
    """A release with an answer for each GPU, in their order; none where ``error`` says why it could not be read.

    ``kept``: nothing was fetched for it, since the index has it. ``sampled`` of ``modules`` were read, None for all.
    ``assumed``: it was not opened, since releases on both sides of it agree.
    """

    version: str
    file: str
    answers: tuple[ReleaseAnswer, ...]
    modules: int = 0
    sampled: int | None = None
    fetched: int = 0
    kept: bool = False
    assumed: bool = False
    error: str = ""


class ReleaseToJudge(NamedTuple):
    """A version with what has to be opened for it; ``unit`` is made when it is needed."""

    version: str
    file: str
    unit: Callable[[], NamedUnit]


class ReleaseReader:
    """Reads releases, or takes them from the index. ``again`` reads what is kept, too; ``samples`` reads parts of large packages."""

    def __init__(self, database: Database, limits: Limits, on_read: OnRead, *, again: bool = False, samples: bool = True) -> None:
        self.database, self.limits, self.on_read = database, limits, on_read
        self.again, self.samples = again, samples
        self._samples = SampledPackages(on_read)

    def judged(self, release: ReleaseToJudge, environments: Sequence[Environment]) -> JudgedRelease:
        """One release on every GPU; what cannot be read is an error in the answer."""
        try:
            unit = release.unit()
            address, state = _identity(unit)
            kept = None if self.again else self.database.release(address, state)
            samples = self.samples and all(each.device.vendor == Vendor.NVIDIA for each in environments)
            if kept is not None and kept.sampled is not None and not samples:
                kept = None
            fresh = kept is None
            if kept is None:
                record, fetched = self._read(unit, samples=samples)
                kept = KeptRelease(address, state, __version__, record.text, record.modules, record.sampled, fetched)
                self.database.keep_release(kept)
            doctor = HeaderDoctor(tree_of(kept.headers, release.file), limit=self.limits.image)
        except FatpatchError as error:
            return JudgedRelease(release.version, release.file, (), error=error.message)
        answers = tuple(_answer(doctor.judge(environment)) for environment in environments)
        fetched = kept.fetched if fresh else 0
        return JudgedRelease(release.version, release.file, answers, kept.modules, kept.sampled, fetched, kept=not fresh)

    def _read(self, unit: NamedUnit, *, samples: bool) -> tuple[HeaderRecord, int]:
        """The headers, and how many bytes were fetched for them. Samples are taken of packages on servers, for NVIDIA GPUs alone."""
        fetched: list[Fetched] = []
        limits = self.limits._replace(remote=self.limits.remote._replace(report=fetched.append))
        record = self._samples.record_of(unit, limits) if samples else None
        if record is None:
            with opened_unit(unit, limits, self.on_read) as node:
                record = record_of(node)
        return record, sum(each.fetched for each in fetched)


def every(releases: Sequence[ReleaseToJudge], reader: ReleaseReader, asked: Sequence[Environment]) -> Iterator[JudgedRelease]:
    """Every release, one after the other."""
    for release in releases:
        yield reader.judged(release, asked)


def until_it_runs(releases: Sequence[ReleaseToJudge], reader: ReleaseReader, asked: Sequence[Environment]) -> Iterator[JudgedRelease]:
    """From the newest to the first that runs on each GPU."""
    left = set(range(len(asked)))
    for release in releases:
        found = reader.judged(release, asked)
        yield found
        left -= {index for index in left if found.answers and found.answers[index].works}
        if not left:
            return


def by_bisection(releases: Sequence[ReleaseToJudge], reader: ReleaseReader, asked: Sequence[Environment]) -> Iterator[JudgedRelease]:
    """Every release, of which only those are opened between which an answer changes.

    Right where each half, the newer and the older, gains or loses a GPU at most once. A release that cannot be read is no evidence: what
    lies beside it is opened.
    """
    opened: dict[int, JudgedRelease] = {}

    def answers(index: int) -> tuple[bool, ...] | None:
        if index not in opened:
            opened[index] = reader.judged(releases[index], asked)
        return tuple(each.works for each in opened[index].answers) or None

    def between(low: int, high: int) -> None:
        if high - low < 2 or (answers(low) is not None and answers(low) == answers(high)):
            return
        middle = (low + high) // 2
        answers(middle)
        between(low, middle)
        between(middle, high)

    last, middle = len(releases) - 1, len(releases) // 2
    for index in dict.fromkeys((0, middle, last) if releases else ()):
        answers(index)
    between(0, middle)
    between(middle, last)
    before: tuple[ReleaseAnswer, ...] = ()
    for index, release in enumerate(releases):
        found = opened.get(index) or JudgedRelease(release.version, release.file, before, assumed=True)
        before = found.answers
        yield found


def _answer(found: FileVerdict) -> ReleaseAnswer:
    targets = dict.fromkeys(module.verdict.target for module in found.here if module.verdict.target is not None)
    grouped = {id(unit) for group in found.alternatives for unit in group}
    alone = [unit for unit in found.libraries if id(unit) not in grouped] if found.libraries else [found]
    compiles = any(unit.verdict == JIT for unit in alone) or any(_only_compiled(group) for group in found.alternatives)
    return ReleaseAnswer(outcome_of(found), works(found), compiles, tuple(targets)[:8])


def _only_compiled(group: Sequence[FileVerdict]) -> bool:
    """Whether of the alternatives that run all have PTX alone for the GPU."""
    running = [unit for unit in group if works(unit)]
    return bool(running) and all(unit.verdict == JIT for unit in running)


def _identity(unit: NamedUnit) -> tuple[str, str]:
    """What the index calls a release, and of a file its state."""
    paths = [part.path for part in unit.parts] or [unit.path]
    if all(scheme_of(path) for path in paths):
        return " ".join(map(shown_address, paths)), ""
    try:
        states = [os.stat(path) for path in paths]
    except OSError:
        return " ".join(paths), "?"  # reading it says why
    return " ".join(map(os.path.realpath, paths)), " ".join(f"{each.st_size}:{each.st_mtime_ns}" for each in states)
