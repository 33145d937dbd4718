"""Whether what a user named runs: files, packages and environments, on one GPU or a fleet, with what helps where it does not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from fatpatch.api.gpus import Environment, GpuToJudge
from fatpatch.api.verdict import Verdict
from fatpatch.base.errors import InputError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.tree import Diagnostic, ModelFacts, Node
from fatpatch.named.reading import UnitReader
from fatpatch.named.resolve import is_package
from fatpatch.named.unit import NamedUnit, read_ahead
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.scan.environments import active_environment
from fatpatch.scan.image_packages import ImagePart, image_parts
from fatpatch.verdicts.beside import Needed
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.outcome import OUTCOMES, outcome_of, works
from fatpatch.verdicts.quick import judged_quickly
from fatpatch.verdicts.remedies import remedies
from fatpatch.verdicts.remedy import Candidate, Remedy
from fatpatch.verdicts.results import FileVerdict

if TYPE_CHECKING:
    from fatpatch.api.releases import ReleaseSearch

__all__ = [
    "OUTCOMES",
    "Consultation",
    "DistributionRow",
    "FileVerdict",
    "FolderVerdict",
    "ImagePart",
    "JudgedPart",
    "Needed",
    "OpenedUnit",
    "model_facts",
    "outcome_of",
    "works",
]

_ORDER = tuple(OUTCOMES)


class JudgedPart(NamedTuple):
    """What is judged by itself. ``cuda``: the release of the PyTorch beside it; ``names``: of the libraries that lie with it."""

    shown: str
    node: Node
    doctor: Doctor
    cuda: str | None
    names: frozenset[str]


class OpenedUnit(NamedTuple):
    """What was named, as it was read. ``images``: of a container image its packages with GPU code, and the files that none owns."""

    whole: JudgedPart
    images: tuple[ImagePart, ...]


class Other(NamedTuple):
    """Another build, to use instead or to take images from, as the user named it."""

    shown: str
    node: Node


class DistributionRow(NamedTuple):
    """A distribution with GPU code, its verdict for each GPU, and what its libraries load that is nowhere in the folder.

    ``by_headers``: its kernels were not looked at.
    """

    shown: str
    found: tuple[FileVerdict, ...]
    missing: tuple[Needed, ...]
    by_headers: bool = False

    @property
    def kernels(self) -> bool:
        """Whether it has a folder of kernel libraries."""
        return bool(self.found[0].node.kernel_files)

    @property
    def worst(self) -> int:
        """The rank of its worst outcome; the lower, the worse."""
        return min(_ORDER.index(outcome_of(each)) for each in self.found)


class FolderVerdict(NamedTuple):
    """All distributions of a folder. ``without``: how many hold no GPU code.

    ``names``: by how a row is shown, the name that asks for it alone; ``python``: the environment to say then, empty for the active one.
    """

    shown: str
    environments: tuple[Environment, ...]
    rows: tuple[DistributionRow, ...]
    without: int
    diagnostics: tuple[Diagnostic, ...]
    names: Mapping[str, str] = MappingProxyType({})
    python: str = ""

    @property
    def works(self) -> bool:
        """Whether every distribution runs on every GPU."""
        return all(works(each) for row in self.rows for each in row.found)


class Consultation(NamedTuple):
    """What to judge for, and how. ``model`` with its name; ``candidates``: other builds, as (path, shown).

    ``as_typed``: how a path is written in the commands that are proposed.
    """

    gpus: tuple[GpuToJudge, ...]
    reading: UnitReader
    model: ModelFacts | None = None
    model_name: str | None = None
    candidates: tuple[tuple[str, str], ...] = ()
    releases: ReleaseSearch | None = None
    as_typed: Callable[[str], str] = str

    @property
    def limits(self) -> Limits:
        """How much of a hostile file is followed."""
        return self.reading.limits

    @contextmanager
    def opened(self, unit: NamedUnit) -> Iterator[OpenedUnit]:
        """One unit, to judge inside the block. FatpatchError when it cannot be read."""
        with self.reading.opened(unit) as (_, node, _):
            yield OpenedUnit(self._part(unit, node), tuple(image_parts(node)))

    def units(self, given: NamedUnit) -> Sequence[NamedUnit]:
        """Of a folder its distributions, whose files are read ahead; else the unit itself."""
        return read_ahead(given.units, self.limits)

    def parts(self, given: OpenedUnit) -> list[JudgedPart]:
        """What of it is judged by itself: of a container image each package with GPU code."""
        return [self._image_part(part) for part in given.images if any(payloads_below(part.node))] or [given.whole]

    def judged(self, part: JudgedPart, subject: GpuToJudge) -> FileVerdict:
        """The verdict; of alternatives the one that the PyTorch of the unit's environment picks, unless another release is given."""
        return part.doctor.judge(_meant(part, subject))

    def subjects(self, part: JudgedPart) -> list[GpuToJudge]:
        """In a fleet of all targets only those of vendors whose code is in the file; what they load is read for all of them at once."""
        vendors = {payload.vendor for _, payload in payloads_below(part.node)}
        subjects = [each for each in self.gpus if not each.names or not vendors or each.environment.device.vendor in vendors]
        part.doctor.read_ahead(subject.environment for subject in subjects)
        return subjects

    def explained(self, part: JudgedPart, found: FileVerdict, others: Sequence[Other]) -> Verdict:
        """A verdict with what helps."""
        return Verdict(part.doctor, found, part.shown, self._remedies(part, found, others), part.names)

    def folder(self, unit: NamedUnit) -> FolderVerdict:
        """The verdict on each distribution of a folder, for each GPU."""

        def parts() -> Iterator[JudgedPart]:
            for each in self.units(unit):
                with self.reading.opened(each) as (_, node, _):
                    yield self._part(each, node)

        names = {each.shown: each.distribution.name for each in unit.units if each.distribution is not None and each.distribution.version}
        names = {shown: name for shown, name in names.items() if is_package(name)}
        active = os.path.realpath(unit.path) == os.path.realpath(active_environment())
        return self._together(unit.shown, parts())._replace(names=names, python="" if active else unit.path)

    def image(self, given: OpenedUnit) -> FolderVerdict:
        """The verdict on each package of a container image, and on the files that none owns."""
        return self._together(given.whole.shown, map(self._image_part, given.images))

    def _together(self, shown: str, parts: Iterable[JudgedPart]) -> FolderVerdict:
        rows: list[DistributionRow] = []
        diagnostics: list[Diagnostic] = []
        without = 0
        for part in parts:
            mine = list(all_diagnostics(part.node))
            diagnostics += mine
            if not any(payloads_below(part.node)) and not any(item.field == NOT_READ for item in mine):
                without += 1
                continue
            quick = [judged_quickly(part.doctor, _meant(part, subject)) for subject in self.gpus]
            found = tuple(each.found for each in quick)
            beside = part.doctor.beside(found[0], part.names)
            missing = tuple(need for need in beside if not need.here and need.library.imported)
            rows.append(DistributionRow(part.shown, found, missing, any(each.by_headers for each in quick)))
        return FolderVerdict(shown, tuple(subject.environment for subject in self.gpus), tuple(rows), without, tuple(diagnostics))

    @contextmanager
    def others(self) -> Iterator[list[Other]]:
        """The candidates, opened before anything is judged. FatpatchError for one that cannot be read, or holds no GPU code."""
        with ExitStack() as stack:
            found = []
            for path, shown in self.candidates:
                _, node, _ = stack.enter_context(self.reading.opened(NamedUnit(shown, path)))
                if not any(payloads_below(node)):
                    hint = "--candidate takes another build: a library, wheel or llamafile"
                    raise InputError("holds no GPU code", locator=shown, hint=hint)
                found.append(Other(shown, node))
            yield found

    def _remedies(self, part: JudgedPart, found: FileVerdict, others: Sequence[Other]) -> tuple[Remedy, ...]:
        candidates = []
        for other in others:
            judge = self._doctor(other.node)
            candidates.append(Candidate(other.shown, judge, judge.judge(found.environment)))
        rows = remedies(part.doctor, found, self.as_typed(part.node.path), candidates)
        if self.releases is None or works(found):
            return rows
        more = self.releases.remedy(part.node.path, found.environment)
        return rows if more is None else (more, *rows) if more.works else (*rows, more)

    def _part(self, unit: NamedUnit, node: Node) -> JudgedPart:
        where = unit.where
        return JudgedPart(unit.shown, node, self._doctor(node), *((None, frozenset()) if where is None else (where.cuda, where.names)))

    def _image_part(self, part: ImagePart) -> JudgedPart:
        return JudgedPart(part.shown, part.node, Doctor(part.node, limit=self.limits.image), part.cuda, part.names)

    def _doctor(self, node: Node) -> Doctor:
        return Doctor(node, limit=self.limits.image, model=self.model, model_name=self.model_name)


def _meant(part: JudgedPart, subject: GpuToJudge) -> Environment:
    return subject.environment._replace(cuda=subject.environment.cuda or part.cuda)


def model_facts(path: str, shown: str) -> ModelFacts:
    """What the header of a GGUF file says. InputError for another kind of file."""
    with UnitReader(Limits()).opened(NamedUnit(shown, path)) as (_, node, _):
        if node.facts is None:
            raise InputError("is not a GGUF model", locator=shown, hint="give the .gguf file, or a llamafile that has one inside as FILE")
        return node.facts
