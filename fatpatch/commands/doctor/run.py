"""One run of ``doctor``: read the files, judge them for each GPU, hand the verdicts to a renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from fatpatch import __version__
from fatpatch.base.errors import FatpatchError, FormatError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import safe
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands._shared.options import print_diagnostics, worse
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.standard_input import SHOWN
from fatpatch.commands.doctor import fleet
from fatpatch.commands.doctor.environment import DistributionRow, FolderVerdict
from fatpatch.commands.doctor.gpus import GpuToJudge
from fatpatch.gpucode.demangle import readable
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import Vendor
from fatpatch.model.tree import ModelFacts, Node
from fatpatch.named.unit import NamedUnit, NamingChoices, opened_unit
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.scan.image_packages import ImagePart, image_parts
from fatpatch.scan.walk import inspected
from fatpatch.verdicts import document as doctor_json
from fatpatch.verdicts.claims import contradiction
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.operations import operations
from fatpatch.verdicts.outcome import works
from fatpatch.verdicts.quick import judged_quickly
from fatpatch.verdicts.remedies import remedies
from fatpatch.verdicts.remedy import Candidate, Remedy
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words import report as text
from fatpatch.verdicts.words.layout import wrapped

Writer = Callable[[str], object]
_FINDINGS = 1


def read_model(path: str, shown: str) -> ModelFacts:
    """What the header of a GGUF file says. InputError for another kind of file."""
    with _named(path, shown), inspected(path) as node:
        if node.facts is None:
            raise InputError("is not a GGUF model", locator=shown, hint="give the .gguf file, or a llamafile that has one inside as FILE")
        return node.facts


@contextmanager
def _named(path: str, shown: str) -> Iterator[None]:
    """Errors about a file speak of it as its user does."""
    try:
        yield
    except FatpatchError as error:
        error.speak_of(path, shown)
        raise


class Other(NamedTuple):
    """A candidate as the user named it."""

    shown: str
    node: Node


class _Part(NamedTuple):
    """What is judged by itself. ``cuda``: the release of the PyTorch beside it; ``names``: of the libraries that lie with it."""

    shown: str
    node: Node
    doctor: Doctor
    cuda: str | None
    names: frozenset[str]


class Consultation(NamedTuple):
    """All that the options ask for; ``table`` even for one GPU."""

    environments: tuple[GpuToJudge, ...]
    table: bool
    model: ModelFacts | None
    model_name: str | None
    candidates: tuple[tuple[str, str], ...]
    limits: Limits
    verbose: bool
    releases: NamingChoices | None = None

    @property
    def fleet(self) -> bool:
        """Whether the answer is a table of GPUs."""
        return self.table or len(self.environments) > 1

    def as_text(self, units: Sequence[NamedUnit], out: Writer) -> int:
        """Write the reports; the exit code."""
        with self._others() as others:
            return self._text(units, out, others)

    def _driver(self) -> str | None:
        """The driver that was asked for."""
        drivers = (subject.environment.driver for subject in self.environments)
        return next((driver.version for driver in drivers if driver is not None), None)

    def _text(self, units: Sequence[NamedUnit], out: Writer, others: Sequence[Other]) -> int:
        loop = FileLoop()
        compared: list[tuple[str, FileVerdict]] = []
        several = len(units) > 1 and not self.fleet
        for index, unit in enumerate(units):
            lines: list[str] = [""] if index and (self.fleet or self.verbose or not several) else []
            with loop.file():
                if unit.whole:
                    _write(lines + self._folder_lines(self.folder(unit), loop), out)
                    continue
                with self._read(unit) as (node, doctor):
                    if not self.table and (parts := image_parts(node)):
                        lines += self._folder_lines(self.image(unit, parts), loop)
                    elif self.fleet:
                        lines += self._fleet_lines(unit, node, doctor, loop)
                    else:
                        part = _part_of(unit, node, doctor)
                        verdict = self._judged(part, self.environments[0])
                        compared.append((unit.shown, verdict))
                        loop.found(_code_of([verdict]))
                        quiet.verdict(text.headline(verdict, unit.shown))
                        lines += self._report(part, verdict, others) if not several or self.verbose else []
                    _write(lines, out)
                    loop.tell(list(all_diagnostics(node)))
        if several and compared:
            _write(self._comparison(compared), out)
        return loop.code

    def _folder_lines(self, found: FolderVerdict, loop: FileLoop) -> list[str]:
        quiet.verdict(found.first_line())
        loop.found(found.code)
        return list(found.text(self._driver()))

    def _fleet_lines(self, unit: NamedUnit, node: Node, doctor: Doctor, loop: FileLoop) -> list[str]:
        """A table for each vendor, with a blank line between two."""
        part, lines = _part_of(unit, node, doctor), list[str]()
        rows = [fleet.FleetRow(self._judged(part, subject), subject.names) for subject in self._subjects(node, doctor)]
        for vendor in dict.fromkeys(row.found.environment.device.vendor for row in rows):
            mine = [row for row in rows if row.found.environment.device.vendor == vendor]
            lines += fleet.fleet(mine, unit.shown, self._driver() if vendor == Vendor.NVIDIA else None)
            lines.append("")
        for row in rows:
            quiet.verdict(text.headline(row.found, unit.shown))
        loop.found(_code_of([row.found for row in rows]))
        return lines[:-1]

    def _report(self, part: _Part, verdict: FileVerdict, others: Sequence[Other]) -> Iterator[str]:
        """What is told of one file on one GPU."""
        advice = self._remedies(part.node, part.doctor, verdict, others)
        failing = operations(part.doctor.lacking(verdict), readable)
        beside = part.doctor.beside(verdict, part.names)
        yield from text.report(verdict, advice, part.shown, readable, beside, failing, verbose=self.verbose)
        if (wrong := contradiction(part.node, part.shown, self.limits.image)) is not None:
            yield from ("", *wrapped("", f"The name is wrong: {safe(wrong)}."))

    def _comparison(self, compared: Sequence[tuple[str, FileVerdict]]) -> Iterator[str]:
        if self.verbose:
            yield ""
        yield f"On {text.device_words(self.environments[0].environment)}:"
        yield ""
        yield from fleet.side_by_side(compared)
        yield ""
        yield from fleet.differences(compared, readable)

    def as_json(self, units: Sequence[NamedUnit]) -> tuple[int, dict[str, Any]]:
        """(exit code, document); the distributions of a folder are files of their own."""
        with self._others() as others:
            return self._json(units, others)

    def _json(self, units: Sequence[NamedUnit], others: Sequence[Other]) -> tuple[int, dict[str, Any]]:
        loop = FileLoop()
        rows: list[dict[str, Any]] = []
        for unit, whole in [(each, given.whole) for given in units for each in given.units]:
            with loop.file(), self._read(unit) as (node, doctor):
                if whole and not any(payloads_below(node)) and not any(all_diagnostics(node)):
                    continue
                for each in self._judgeable(unit, node, doctor):
                    rows += self._json_rows(each, others, loop)
                loop.tell(list(all_diagnostics(node)))
        asked = [subject.environment for subject in self.environments]
        errors = [{"locator": each.locator, "message": each.message, "exit_code": each.exit_code} for each in loop.errors]
        if self.fleet:
            return loop.code, doctor_json.fleet_document(asked, rows, errors, __version__)
        return loop.code, doctor_json.document(asked[0], rows, errors, __version__)

    def _json_rows(self, part: _Part, others: Sequence[Other], loop: FileLoop) -> list[dict[str, Any]]:
        """The objects of one unit: one a GPU."""
        rows = []
        for subject in self._subjects(part.node, part.doctor):
            found = self._judged(part, subject)
            loop.found(_code_of([found]))
            if self.fleet:
                rows.append(doctor_json.fleet_row(found, part.shown, subject.names))
            else:
                advice = self._remedies(part.node, part.doctor, found, others)
                failing = operations(part.doctor.lacking(found), readable)
                row = doctor_json.file_json(found, advice, part.doctor.beside(found, part.names), failing, part.shown)
                rows.append({**row, "contradicts_name": contradiction(part.node, part.shown, self.limits.image)})
        return rows

    def _judgeable(self, unit: NamedUnit, node: Node, doctor: Doctor) -> list[_Part]:
        """What is judged by itself: of a container image each package with GPU code."""
        parts = [self._image_part(part) for part in image_parts(node) if any(payloads_below(part.node))]
        return parts or [_part_of(unit, node, doctor)]

    def _image_part(self, part: ImagePart) -> _Part:
        return _Part(part.shown, part.node, Doctor(part.node, limit=self.limits.image), part.cuda, part.names)

    def _subjects(self, node: Node, doctor: Doctor) -> list[GpuToJudge]:
        """In a fleet of all targets only those of vendors whose code is in the file; what they load is read for all of them at once."""
        vendors = {payload.vendor for _, payload in payloads_below(node)}
        subjects = [each for each in self.environments if not each.names or not vendors or each.environment.device.vendor in vendors]
        doctor.read_ahead(subject.environment for subject in subjects)
        return subjects

    def _judged(self, part: _Part, subject: GpuToJudge) -> FileVerdict:
        """The verdict; of alternatives the one that the PyTorch of the unit's environment picks, unless --cuda says another."""
        return part.doctor.judge(self._meant(part, subject))

    def _meant(self, part: _Part, subject: GpuToJudge) -> Environment:
        return subject.environment._replace(cuda=subject.environment.cuda or part.cuda)

    def folder(self, unit: NamedUnit) -> FolderVerdict:
        """The verdict on each distribution of a folder, for each GPU."""

        def parts() -> Iterator[_Part]:
            for each in unit.units:
                with self._read(each) as (node, doctor):
                    print_diagnostics(all_diagnostics(node))
                    yield _part_of(each, node, doctor)

        return self._whole(unit.shown, parts())

    def image(self, unit: NamedUnit, parts: Sequence[ImagePart]) -> FolderVerdict:
        """The verdict on each package of a container image, and on the files that none owns."""
        return self._whole(unit.shown, map(self._image_part, parts))._replace(named=False)

    def _whole(self, shown: str, parts: Iterable[_Part]) -> FolderVerdict:
        rows: list[DistributionRow] = []
        without, code = 0, 0
        for part in parts:
            code = worse(code, _damage(part.node))
            if not any(payloads_below(part.node)) and not any(item.field == NOT_READ for item in all_diagnostics(part.node)):
                without += 1
                continue
            quick = [judged_quickly(part.doctor, self._meant(part, subject)) for subject in self.environments]
            found = tuple(each.found for each in quick)
            beside = part.doctor.beside(found[0], part.names)
            missing = tuple(need for need in beside if not need.here and need.library.imported)
            rows.append(DistributionRow(part.shown, found, missing, any(each.by_headers for each in quick)))
            code = worse(code, _code_of(found))
        return FolderVerdict(shown, tuple(subject.environment for subject in self.environments), tuple(rows), without, code)

    @contextmanager
    def _read(self, unit: NamedUnit) -> Iterator[tuple[Node, Doctor]]:
        with (
            _named(unit.path, unit.shown),
            Progress(unit.shown) as progress,
            opened_unit(unit, self.limits, progress.at) as node,
        ):
            yield node, Doctor(node, limit=self.limits.image, model=self.model, model_name=self.model_name)

    @contextmanager
    def _others(self) -> Iterator[list[Other]]:
        """The candidates, opened before anything is judged: an unreadable one is a mistake in the command."""
        with ExitStack() as stack:
            others = []
            for path, shown in self.candidates:
                node = stack.enter_context(self._candidate(path, shown))
                others.append(Other(shown, node))
            yield others

    @contextmanager
    def _candidate(self, path: str, shown: str) -> Iterator[Node]:
        with _named(path, shown), inspected(path, name=file_name(shown), limits=self.limits) as node:
            if not any(payloads_below(node)):
                hint = "--candidate takes another build: a library, wheel or llamafile"
                raise InputError("holds no GPU code", locator=shown, hint=hint)
            yield node

    def _remedies(self, node: Node, doctor: Doctor, found: FileVerdict, others: Sequence[Other]) -> tuple[Remedy, ...]:
        candidates = []
        for other in others:
            judge = Doctor(other.node, limit=self.limits.image, model=doctor.model, model_name=doctor.model_name)
            candidates.append(Candidate(other.shown, judge, judge.judge(found.environment)))
        rows = remedies(doctor, found, "FILE" if node.path == SHOWN else node.path, candidates)
        if self.releases is None or works(found):
            return rows
        from fatpatch.commands.doctor.older import other_release

        more = other_release(node.path, found.environment, self.releases, self.limits)
        return rows if more is None else (more, *rows) if more.works else (*rows, more)


def _part_of(unit: NamedUnit, node: Node, doctor: Doctor) -> _Part:
    return _Part(unit.shown, node, doctor, None if unit.where is None else unit.where.cuda, _names(unit))


def _names(unit: NamedUnit) -> frozenset[str]:
    """The libraries of the unit's environment, in small letters."""
    return frozenset() if unit.where is None else unit.where.names


def _damage(node: Node) -> int:
    return FormatError.exit_code if any(item.level == "error" for item in all_diagnostics(node)) else 0


def _code_of(found: Sequence[FileVerdict]) -> int:
    return 0 if all(map(works, found)) else _FINDINGS


def _write(lines: Iterable[str], out: Writer) -> None:
    out("".join(f"{line}\n" for line in lines))
