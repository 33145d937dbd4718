"""One run of ``doctor``: the verdicts of the consultation, handed to a renderer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from fatpatch import __version__
from fatpatch.api.consultation import Consultation, FileVerdict, FolderVerdict, OpenedUnit, works
from fatpatch.api.naming import NamedUnit, all_diagnostics, payloads_below
from fatpatch.api.verdict import Verdict, device_words, doctor_json, headline
from fatpatch.base.layout import wrapped
from fatpatch.base.records import NamedTuple
from fatpatch.base.words import safe
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.file_loop import FileLoop
from fatpatch.commands.doctor import environment, fleet
from fatpatch.model.kinds import Vendor

Writer = Callable[[str], object]
_FINDINGS = 1


class DoctorRun(NamedTuple):
    """A consultation and how its answers are shown; ``table`` even for one GPU."""

    consultation: Consultation
    loop: FileLoop
    table: bool
    verbose: bool

    @property
    def fleet(self) -> bool:
        """Whether the answer is a table of GPUs."""
        return self.table or len(self.consultation.gpus) > 1

    def _driver(self) -> str | None:
        """The driver that was asked for."""
        drivers = (subject.environment.driver for subject in self.consultation.gpus)
        return next((driver.version for driver in drivers if driver is not None), None)

    def as_text(self, units: Sequence[NamedUnit], out: Writer) -> int:
        """Write the reports; the exit code."""
        compared: list[tuple[str, FileVerdict]] = []
        several = len(units) > 1 and not self.fleet
        asked, reading = self.consultation, self.consultation.reading
        with asked.others() as others:
            for index, unit in enumerate(units):
                lines: list[str] = [""] if index and (self.fleet or self.verbose or not several) else []
                with reading.guarded():
                    if unit.whole:
                        found = asked.folder(unit)
                        self.loop.tell(found.diagnostics)
                        _write(lines + self._folder_lines(found), out)
                        continue
                    with asked.opened(unit) as given:
                        if not self.table and given.images:
                            lines += self._folder_lines(asked.image(given))
                        elif self.fleet:
                            lines += self._fleet_lines(given)
                        else:
                            verdict = asked.judged(given.whole, asked.gpus[0])
                            compared.append((unit.shown, verdict))
                            self.loop.found(_code_of([verdict]))
                            quiet.verdict(headline(verdict, unit.shown))
                            if not several or self.verbose:
                                lines += self._report(asked.explained(given.whole, verdict, others))
                        _write(lines, out)
                        self.loop.tell(list(all_diagnostics(given.whole.node)))
        if several and compared:
            _write(self._comparison(compared), out)
        return self.loop.code

    def _folder_lines(self, found: FolderVerdict) -> list[str]:
        quiet.verdict(environment.first_line(found))
        self.loop.found(0 if found.works else _FINDINGS)
        return list(environment.text(found, self._driver()))

    def _fleet_lines(self, given: OpenedUnit) -> list[str]:
        """A table for each vendor, with a blank line between two."""
        part, lines, asked = given.whole, list[str](), self.consultation
        rows, headlines = list[fleet.FleetRow](), list[str]()
        for subject in asked.subjects(part):  # a verdict holds every module: only what the table shows of it is kept
            found = asked.judged(part, subject)
            rows.append(fleet.FleetRow.of(found, subject.names))
            headlines.append(headline(found, part.shown))
            self.loop.found(_code_of([found]))
        for vendor in dict.fromkeys(row.vendor for row in rows):
            mine = [row for row in rows if row.vendor == vendor]
            lines += fleet.fleet(mine, part.shown, self._driver() if vendor == Vendor.NVIDIA else None)
            lines.append("")
        for line in headlines:
            quiet.verdict(line)
        return lines[:-1]

    def _report(self, verdict: Verdict) -> Iterator[str]:
        """What is shown of one file on one GPU."""
        yield verdict.report(verbose=self.verbose)
        if verdict.contradicts_name is not None:
            yield from ("", *wrapped("", f"The name is wrong: {safe(verdict.contradicts_name)}."))

    def _comparison(self, compared: Sequence[tuple[str, FileVerdict]]) -> Iterator[str]:
        if self.verbose:
            yield ""
        yield f"On {device_words(self.consultation.gpus[0].environment)}:"
        yield ""
        yield from fleet.side_by_side(compared)
        yield ""
        yield from fleet.differences(compared)

    def as_json(self, units: Sequence[NamedUnit]) -> tuple[int, dict[str, Any]]:
        """(exit code, document); the distributions of a folder are files of their own."""
        rows: list[dict[str, Any]] = []
        asked = self.consultation
        with asked.others() as others:
            for unit, whole in ((each, given.whole) for given in units for each in asked.units(given)):
                with asked.reading.guarded(), asked.opened(unit) as given:
                    diagnostics = list(all_diagnostics(given.whole.node))
                    if whole and not any(payloads_below(given.whole.node)) and not diagnostics:
                        continue
                    for part in asked.parts(given):
                        for subject in asked.subjects(part):
                            found = asked.judged(part, subject)
                            self.loop.found(_code_of([found]))
                            if self.fleet:
                                rows.append(doctor_json.fleet_row(found, part.shown, subject.names))
                            else:
                                rows.append(asked.explained(part, found, others).to_dict())
                    self.loop.tell(diagnostics)
        environments = [subject.environment for subject in asked.gpus]
        errors = [{"locator": each.locator, "message": each.message, "exit_code": each.exit_code} for each in self.loop.errors]
        if self.fleet:
            return self.loop.code, doctor_json.fleet_document(environments, rows, errors, __version__)
        return self.loop.code, doctor_json.document(environments[0], rows, errors, __version__)


def _code_of(found: Sequence[FileVerdict]) -> int:
    return 0 if all(map(works, found)) else _FINDINGS


def _write(lines: Iterable[str], out: Writer) -> None:
    out("".join(f"{line}\n" for line in lines))
