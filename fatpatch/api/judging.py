"""Judgements: will it run, is it what a policy demands, what changed between two releases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fatpatch.api.file import File, paths_of, plain
from fatpatch.api.options import PathLike, RunChoices, RunOptions
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.demangle import readable
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver as driver_of
from fatpatch.model.kinds import Vendor
from fatpatch.named.resolve import resolve
from fatpatch.named.unit import NamedUnit, NamingChoices, files_of
from fatpatch.policy import document as check_document
from fatpatch.policy.finding import Finding, fails
from fatpatch.policy.policy import MustRun, Policy, read_policy
from fatpatch.policy.run import CheckOutcome, Selection, check_files
from fatpatch.release import text as diff_words
from fatpatch.release.run import ReleaseComparison, compare
from fatpatch.verdicts import document as doctor_json
from fatpatch.verdicts.claims import contradiction
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.operations import operations
from fatpatch.verdicts.outcome import outcome_of, works
from fatpatch.verdicts.remedies import remedies
from fatpatch.verdicts.remedy import Remedy
from fatpatch.verdicts.results import FileVerdict
from fatpatch.verdicts.words import report as doctor_words

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Verdict:
    """Whether a file runs on a GPU: true only when nothing is incompatible."""

    def __init__(self, doctor: Doctor, found: FileVerdict, shown: str) -> None:
        self.facts = found
        self.remedies: tuple[Remedy, ...] = remedies(doctor, found, shown, ())
        self._shown, self._beside = shown, doctor.beside(found)
        self._failing = operations(doctor.lacking(found), readable)
        self.contradicts_name = contradiction(doctor.node, shown, doctor.limit)
        """What contradicts the CUDA release in the file's name, in words; None where nothing does."""

    def __bool__(self) -> bool:
        return works(self.facts)

    def __repr__(self) -> str:
        return f"<fatpatch.Verdict {self.outcome}: {self._shown}>"

    def __str__(self) -> str:
        return "\n".join(self._lines(verbose=False))

    @property
    def outcome(self) -> str:
        """``runs``, ``slow-start``, ``will-not-run``, ``runs-in-part``, ...: the words of the schema fatpatch.doctor/2."""
        return outcome_of(self.facts)

    @property
    def reason(self) -> str:
        """The first line of the report, which says the verdict, the GPU and the driver."""
        return doctor_words.headline(self.facts, self._shown)

    def report(self, *, verbose: bool = False) -> str:
        """The text that ``fatpatch doctor`` prints."""
        return "\n".join(self._lines(verbose=verbose))

    def to_dict(self) -> dict[str, Any]:
        """The object that ``fatpatch doctor --format json`` prints for the file (schema fatpatch.doctor/2, "files")."""
        row = doctor_json.file_json(self.facts, self.remedies, self._beside, self._failing, self._shown)
        return plain({**row, "contradicts_name": self.contradicts_name})

    def _lines(self, *, verbose: bool) -> Iterator[str]:
        return doctor_words.report(self.facts, self.remedies, self._shown, readable, self._beside, self._failing, verbose=verbose)


def doctor(
    what: PathLike | File,
    gpu: str,
    driver: str | None = None,
    *,
    cuda: str | None = None,
    force_ptx: bool = False,
    disable_ptx: bool = False,
    eager: bool = False,
    limits: Limits | None = None,
) -> Verdict:
    """Judge a file for one GPU: a name ("RTX 3060"), a target (sm_86, 8.6, gfx1031) or a PCI id.

    ``driver`` such as "535.154", or the CUDA version that nvidia-smi shows ("12.8"); without one any that fits is assumed. ``cuda``: the
    release by which a program picks among alternatives. The rest stands for CUDA_FORCE_PTX_JIT, CUDA_DISABLE_PTX_JIT and
    CUDA_MODULE_LOADING=EAGER. InputError for a name that is not known, with suggestions in its hint.
    """
    device = find(gpu)
    given = None if driver is None or device.vendor != Vendor.NVIDIA else driver_of(driver)
    environment = Environment(device, given, force_ptx, disable_ptx, eager)
    environment = environment._replace(cuda=cuda)
    with _opened(what, limits) as file:
        judge = Doctor(file.node, limit=file.limits.image)
        return Verdict(judge, judge.judge(environment), file.path)


@contextmanager
def _opened(what: PathLike | File, limits: Limits | None) -> Iterator[File]:
    if isinstance(what, File):
        what.require_open()
        yield what
        return
    with File(what, limits=limits) as file:
        yield file


class Check:
    """What a policy found: true when nothing fails."""

    def __init__(self, outcome: CheckOutcome, policy: str, fail_on: str) -> None:
        self.facts, self._policy, self._fail_on = outcome, policy, fail_on

    def __bool__(self) -> bool:
        return not any(fails(finding, self._fail_on) for finding in self.findings)

    def __repr__(self) -> str:
        return f"<fatpatch.Check {'passed' if self else 'FAILED'}: {len(self.findings)} findings>"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Rule, level, locator, message and remedy of each, without those that the policy allows."""
        return self.facts.findings

    def to_dict(self) -> dict[str, Any]:
        """The document of schema fatpatch.check/1."""
        return plain(check_document.document(self.facts, failed=not self, policy=self._policy))


def check(
    paths: PathLike | Sequence[PathLike],
    *,
    policy: PathLike | None = None,
    require: Sequence[str] = (),
    forbid: Sequence[str] = (),
    gpus: Sequence[str] = (),
    driver: str | None = None,
    fail_on: str = "error",
    **options: Unpack[RunOptions],
) -> Check:
    """Hold files and folders against a policy file, or against what is required here: targets, and GPUs that must run.

    ``fail_on``: error, warning or note. ``jobs`` worker processes, one by default; ``limits`` of what is read.
    InputError for a policy that cannot be read or a name that is not known.
    """
    rules = Policy() if policy is None else read_policy(str(policy))
    demands = rules.demands
    run = (*demands.run, MustRun(tuple(gpus), driver, ())) if gpus else demands.run
    demands = demands._replace(require=(*demands.require, *require), forbid=(*demands.forbid, *forbid), run=run)
    for name in gpus:
        find(name)
    given, run_as = paths_of(paths), RunChoices(**options)
    bounds = run_as.limits or Limits()
    units = _units(given, bounds)
    outcome = check_files(
        files_of(units), rules._replace(demands=demands), Selection(), bounds, given=[unit.shown for unit in units], jobs=run_as.jobs
    )
    return Check(outcome, rules.source, fail_on)


def _units(words: Sequence[str], limits: Limits) -> list[NamedUnit]:
    return resolve(words, words, NamingChoices(remote=limits.remote))


class Difference(NamedTuple):
    """Two releases compared: true when their GPU code differs."""

    facts: ReleaseComparison

    def __bool__(self) -> bool:
        return not self.facts.empty

    def markdown(self, *, every: bool = False) -> str:
        """For release notes; ``every`` lists all kernels, not the first."""
        return "\n".join(diff_words.markdown(self.facts, readable, every=every))

    def to_dict(self) -> dict[str, Any]:
        """The document of schema fatpatch.diff/1."""
        return plain(diff_words.document(self.facts))


def diff(old: PathLike, new: PathLike, *, threshold: float = 0.0, jobs: int | None = None, limits: Limits | None = None) -> Difference:
    """Compare two files or folders. ``threshold``: numbers count when they change by more than this part (0.05: five percent)."""
    first, second = _units([paths_of(path)[0] for path in (old, new)], limits or Limits())
    found = compare(first, second, limits=limits or Limits(), threshold=threshold, jobs=jobs, on_read=lambda *_: None)
    if found.errors and not found.differences:
        raise found.errors[0]
    return Difference(found)
