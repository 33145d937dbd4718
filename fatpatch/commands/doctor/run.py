"""One run of ``doctor``: read the files, judge them for each GPU, hand the verdicts to a renderer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import click

from fatpatch import __version__
from fatpatch.base.errors import FatpatchError, FormatError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.commands._shared import quiet
from fatpatch.commands._shared.console import print_error
from fatpatch.commands._shared.options import print_diagnostics, worse
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands._shared.standard_input import SHOWN
from fatpatch.commands.doctor import fleet
from fatpatch.gpucode.demangle import readable
from fatpatch.gpus.amd import overridden
from fatpatch.gpus.devices import Device, find
from fatpatch.gpus.drivers import Driver, on_jetson_linux
from fatpatch.gpus.drivers import driver as driver_of
from fatpatch.gpus.fleet import every_target
from fatpatch.model.tree import ModelFacts, Node
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.scan.distributions import Distribution, Installed
from fatpatch.scan.distributions import opened as opened_distribution
from fatpatch.scan.walk import inspected
from fatpatch.verdicts import document as doctor_json
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.operations import operations
from fatpatch.verdicts.outcome import works
from fatpatch.verdicts.remedies import remedies
from fatpatch.verdicts.remedy import Candidate, Remedy
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words import report as text

Writer = Callable[[str], object]
_FINDINGS = 1


class GpuToJudge(NamedTuple):
    """A GPU to judge for; ``names`` are the products that it stands for in a fleet."""

    environment: Environment
    names: tuple[str, ...] = ()


def environments(
    gpus: Sequence[str],
    driver: str | None,
    *,
    force_ptx: bool,
    disable_ptx: bool,
    eager: bool,
    hsa_override: str | None,
    cuda: str | None = None,
) -> tuple[GpuToJudge, ...]:
    """The GPUs that the options name, each with the circumstances; "auto" asks this machine, "all" is every target known.

    A usage error for a name that is not known or not clear, and for what is asked of no GPU here.
    """
    try:
        subjects = _environments(gpus, driver, force_ptx, disable_ptx, eager, hsa_override)
    except InputError as error:
        raise click.UsageError(f"{error.message}\n  hint: {error.hint}" if error.hint else error.message) from error
    if cuda is not None:
        if not re.fullmatch(r"\d{1,2}(?:\.\d{1,2})?", cuda):
            raise click.BadParameter(f"expected a release such as 12.6, got {cuda!r}", param_hint="--cuda")
        subjects = tuple(subject._replace(environment=subject.environment._replace(cuda=cuda)) for subject in subjects)
    vendors = {subject.environment.device.vendor for subject in subjects}
    if hsa_override is not None and "amd" not in vendors:
        raise click.UsageError("--hsa-override is for AMD GPUs, and --gpu names none")
    if "nvidia" not in vendors and (driver is not None or force_ptx or disable_ptx or eager):
        raise click.UsageError("--driver, --force-ptx-jit, --disable-ptx-jit and --eager are for NVIDIA GPUs, and --gpu names none")
    return subjects


def _environments(
    gpus: Sequence[str], driver: str | None, force_ptx: bool, disable_ptx: bool, eager: bool, hsa_override: str | None
) -> tuple[GpuToJudge, ...]:
    chosen: list[tuple[Device, tuple[str, ...]]] = []
    given = None if driver is None else driver_of(driver)
    for gpu in gpus:
        if gpu.strip().lower() == "auto":
            from fatpatch.gpus.local import local_devices, local_driver

            chosen += [(device, ()) for device in local_devices()]
            version = local_driver() if given is None else None
            given = given if version is None else driver_of(version)
        elif gpu == "all":
            chosen += every_target()
        else:
            chosen.append((find(gpu), ()))
    subjects = [GpuToJudge(_environment(device, given, force_ptx, disable_ptx, eager, hsa_override), names) for device, names in chosen]
    return tuple(dict.fromkeys(subjects))


def _environment(
    device: Device, driver: Driver | None, force_ptx: bool, disable_ptx: bool, eager: bool, hsa_override: str | None
) -> Environment:
    if device.vendor == "amd":
        if hsa_override is not None:
            real, target = device.target, overridden(hsa_override)
            note = f"told to be {target} by HSA_OVERRIDE_GFX_VERSION={hsa_override}, which Linux alone reads"
            device = device._replace(target=target, note="; ".join(filter(None, (device.note, note))))
            return Environment(device, hsa_override=hsa_override, own_target=real)
        return Environment(device)
    own = device.arch is not None and on_jetson_linux(device.arch)
    return Environment(device, None if own else driver, force_ptx, disable_ptx, eager)


def read_model(path: str, shown: str) -> ModelFacts:
    """What the header of a GGUF file says. InputError for another kind of file."""
    with _named(path, shown), inspected(path) as node:
        if node.facts is None:
            raise InputError("is no GGUF model", locator=shown, hint="give the .gguf file, or a llamafile that has one inside as FILE")
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


class Consultation(NamedTuple):
    """All that the options ask for; ``table`` even for one GPU."""

    environments: tuple[GpuToJudge, ...]
    table: bool
    model: ModelFacts | None
    model_name: str | None
    candidates: tuple[tuple[str, str], ...]
    limits: Limits
    verbose: bool

    @property
    def fleet(self) -> bool:
        """Whether the answer is a table of GPUs."""
        return self.table or len(self.environments) > 1

    def as_text(self, paths: Sequence[tuple[str, str]], out: Writer) -> int:
        """Write the reports; the exit code."""
        with self._others() as others:
            return self._text(paths, out, others)

    def _driver(self) -> str | None:
        """The driver that was asked for."""
        drivers = (subject.environment.driver for subject in self.environments)
        return next((driver.version for driver in drivers if driver is not None), None)

    def _text(self, paths: Sequence[tuple[str, str]], out: Writer, others: Sequence[Other]) -> int:
        code = 0
        compared: list[tuple[str, FileVerdict]] = []
        several = len(paths) > 1 and not self.fleet
        for index, (path, shown) in enumerate(paths):
            lines: list[str] = [""] if index and (self.fleet or self.verbose or not several) else []
            try:
                with self._read(path, shown) as (node, doctor):
                    code = worse(code, _damage(node))
                    if self.fleet:
                        rows = [fleet.FleetRow(doctor.judge(subject.environment), subject.names) for subject in self._subjects(node)]
                        for vendor in dict.fromkeys(row.found.environment.device.vendor for row in rows):
                            mine = [row for row in rows if row.found.environment.device.vendor == vendor]
                            lines += fleet.fleet(mine, shown, self._driver() if vendor == "nvidia" else None)
                            lines.append("")
                        lines = lines[:-1]
                        for row in rows:
                            quiet.verdict(text.headline(row.found, shown))
                        code = _worse_of(code, [row.found for row in rows])
                    else:
                        found = doctor.judge(self.environments[0].environment)
                        compared.append((shown, found))
                        quiet.verdict(text.headline(found, shown))
                        code = _worse_of(code, [found])
                        if not several or self.verbose:
                            advice = self._remedies(node, doctor, found, others)
                            failing = operations(doctor.lacking(found), readable)
                            lines += text.report(found, advice, shown, readable, doctor.beside(found), failing, verbose=self.verbose)
                    out("".join(f"{line}\n" for line in lines))
                    print_diagnostics(all_diagnostics(node))
            except FatpatchError as error:
                code = worse(code, error.exit_code)
                print_error(error)
        if several and compared:
            out("".join(f"{line}\n" for line in self._comparison(compared)))
        return code

    def _comparison(self, compared: Sequence[tuple[str, FileVerdict]]) -> Iterator[str]:
        if self.verbose:
            yield ""
        yield f"On {text.device_words(self.environments[0].environment)}:"
        yield ""
        yield from fleet.side_by_side(compared)
        yield ""
        yield from fleet.differences(compared, readable)

    def as_json(self, paths: Sequence[tuple[str, str]]) -> tuple[int, dict[str, Any]]:
        """(exit code, document)."""
        with self._others() as others:
            return self._json(paths, others)

    def _json(self, paths: Sequence[tuple[str, str]], others: Sequence[Other]) -> tuple[int, dict[str, Any]]:
        code = 0
        rows: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for path, shown in paths:
            try:
                with self._read(path, shown) as (node, doctor):
                    code = worse(code, _damage(node))
                    for subject in self._subjects(node):
                        found = doctor.judge(subject.environment)
                        code = _worse_of(code, [found])
                        if self.fleet:
                            rows.append(doctor_json.fleet_row(found, shown, subject.names))
                        else:
                            advice = self._remedies(node, doctor, found, others)
                            failing = operations(doctor.lacking(found), readable)
                            rows.append(doctor_json.file_json(found, advice, doctor.beside(found), failing, shown))
                    print_diagnostics(all_diagnostics(node))
            except FatpatchError as error:
                code = worse(code, error.exit_code)
                print_error(error)
                errors.append({"locator": error.locator, "message": error.message, "exit_code": error.exit_code})
        asked = [subject.environment for subject in self.environments]
        if self.fleet:
            return code, doctor_json.fleet_document(asked, rows, errors, __version__)
        return code, doctor_json.document(asked[0], rows, errors, __version__)

    def _subjects(self, node: Node) -> Iterator[GpuToJudge]:
        """In a fleet of all targets only those of vendors whose code is in the file."""
        vendors = {payload.vendor for _, payload in payloads_below(node)}
        for subject in self.environments:
            if not subject.names or not vendors or subject.environment.device.vendor in vendors:
                yield subject

    def installed_text(self, where: Installed, out: Writer) -> int:
        """Write the verdict on what is installed in a folder; the exit code."""
        from fatpatch.commands.doctor.environment import DistributionRow, environment_text

        environment = self.environments[0].environment
        rows, without, code = [], 0, 0
        for distribution in where.distributions:
            with self._installed(distribution, where) as (node, doctor):
                if not any(payloads_below(node)):
                    without += 1
                    continue
                found = doctor.judge(environment._replace(cuda=environment.cuda or where.cuda))
                missing = tuple(need for need in doctor.beside(found, where.names) if not need.here and need.library.imported)
                rows.append(DistributionRow(distribution.shown, found, missing))
                code = _worse_of(code, [found])
        lines = list(environment_text(where.shown, environment, rows, without))
        quiet.verdict(" ".join(line.strip() for line in lines[: lines.index("") if "" in lines else None]))
        out("".join(f"{line}\n" for line in lines))
        return code

    def distribution_text(self, distribution: Distribution, where: Installed, out: Writer) -> int:
        """Write the report on one installed distribution; the exit code."""
        environment = self.environments[0].environment
        with self._installed(distribution, where) as (_, doctor):
            found = doctor.judge(environment._replace(cuda=environment.cuda or where.cuda))
            failing = operations(doctor.lacking(found), readable)
            beside = doctor.beside(found, where.names)
            advice = remedies(doctor, found, distribution.shown, ())
            lines = text.report(found, advice, distribution.shown, readable, beside, failing, verbose=self.verbose)
            quiet.verdict(text.headline(found, distribution.shown))
            out("".join(f"{line}\n" for line in lines))
            return _worse_of(0, [found])

    def installed_json(self, distributions: Sequence[Distribution], where: Installed) -> tuple[int, dict[str, Any]]:
        """(exit code, document): the distributions with GPU code as files."""
        environment = self.environments[0].environment
        rows, code = [], 0
        for distribution in distributions:
            with self._installed(distribution, where) as (node, doctor):
                if not any(payloads_below(node)):
                    continue
                found = doctor.judge(environment._replace(cuda=environment.cuda or where.cuda))
                failing = operations(doctor.lacking(found), readable)
                beside = doctor.beside(found, where.names)
                rows.append(doctor_json.file_json(found, remedies(doctor, found, node.path, ()), beside, failing, distribution.shown))
                code = _worse_of(code, [found])
        return code, doctor_json.document(environment, rows, (), __version__)

    @contextmanager
    def _installed(self, distribution: Distribution, where: Installed) -> Iterator[tuple[Node, Doctor]]:
        with (
            Progress(distribution.shown) as progress,
            opened_distribution(distribution, self.limits, progress=progress.at) as node,
        ):
            yield node, Doctor(node, limit=self.limits.image)

    @contextmanager
    def _read(self, path: str, shown: str) -> Iterator[tuple[Node, Doctor]]:
        with (
            _named(path, shown),
            Progress(shown) as progress,
            inspected(path, name=file_name(shown), limits=self.limits, progress=progress.at) as node,
        ):
            named = node._replace(path=shown)
            yield named, Doctor(named, limit=self.limits.image, model=self.model, model_name=self.model_name)

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
        return remedies(doctor, found, "FILE" if node.path == SHOWN else node.path, candidates)


def _damage(node: Node) -> int:
    return FormatError.exit_code if any(item.level == "error" for item in all_diagnostics(node)) else 0


def _worse_of(code: int, found: Sequence[FileVerdict]) -> int:
    return worse(code, 0 if all(map(works, found)) else _FINDINGS)
