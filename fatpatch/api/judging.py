"""Judgements: will it run, is it what a policy demands, what changed between two releases."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fatpatch.api.documents import plain
from fatpatch.api.file import File, paths_of
from fatpatch.api.gate import Check, GateRequest, PolicyRequest, gate, policy_for
from fatpatch.api.gpus import Circumstances, cuda_release, driver_of, environment_of, find
from fatpatch.api.options import PathLike, RunChoices, RunOptions
from fatpatch.api.verdict import Verdict
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.demangle import readable
from fatpatch.model.kinds import Vendor
from fatpatch.named.resolve import resolve
from fatpatch.named.unit import NamedUnit, NamingChoices
from fatpatch.release import text as diff_words
from fatpatch.release.run import ReleaseComparison, compare
from fatpatch.release.words import Wording, one_line, sections
from fatpatch.scan.walk import Progress
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.remedies import remedies

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "Check",
    "Difference",
    "ReleaseComparison",
    "Wording",
    "check",
    "compared",
    "diff",
    "diff_words",
    "doctor",
    "one_line",
    "sections",
]


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
    given = Circumstances(driver, force_ptx, disable_ptx, eager, cuda=None if cuda is None else cuda_release(cuda))
    named = None if driver is None or device.vendor != Vendor.NVIDIA else driver_of(driver)
    environment = environment_of(device, named, given)
    with _opened(what, limits) as file:
        judge = Doctor(file.node, limit=file.limits.image)
        found = judge.judge(environment)
        return Verdict(judge, found, file.path, remedies(judge, found, file.path, ()))


@contextmanager
def _opened(what: PathLike | File, limits: Limits | None) -> Iterator[File]:
    if isinstance(what, File):
        what.require_open()
        yield what
        return
    with File(what, limits=limits) as file:
        yield file


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
    run_as = RunChoices(**options)
    bounds = run_as.limits or Limits()
    required = PolicyRequest(tuple(require), tuple(forbid), tuple(gpus), driver)
    held = policy_for(required, None if policy is None else os.fspath(policy), look=False)
    return gate(_units(paths_of(paths), bounds), GateRequest(held, fail_on=fail_on), bounds, run_as.jobs)


def _units(words: Sequence[str], limits: Limits) -> list[NamedUnit]:
    return resolve(words, words, NamingChoices(remote=limits.remote))


class Difference(NamedTuple):
    """Two releases compared: true when their GPU code differs."""

    facts: ReleaseComparison

    def __bool__(self) -> bool:
        return not self.facts.empty

    def markdown(self, *, every: bool = False, mangled: bool = False, verbose: bool = False) -> str:
        """For release notes; ``every`` lists all kernels, not the first, ``mangled`` as the linker knows them."""
        return "\n".join(diff_words.markdown(self.facts, str if mangled else readable, every=every, verbose=verbose))

    def text(self, *, every: bool = False, mangled: bool = False, verbose: bool = False) -> str:
        """The text that ``fatpatch diff`` prints; ``verbose``: each file in full, however many differ."""
        return "\n".join(diff_words.text(self.facts, str if mangled else readable, every=every, verbose=verbose))

    def to_dict(self) -> dict[str, Any]:
        """The document of schema fatpatch.diff/1."""
        return plain(diff_words.document(self.facts))


def diff(old: PathLike, new: PathLike, *, threshold: float = 0.0, jobs: int | None = None, limits: Limits | None = None) -> Difference:
    """Compare two files or folders. ``threshold``: numbers count when they change by more than this part (0.05: five percent)."""
    first, second = _units([paths_of(path)[0] for path in (old, new)], limits or Limits())
    found = compared(first, second, limits or Limits(), threshold=threshold, jobs=jobs)
    if found.facts.errors and not found.facts.differences:
        raise found.facts.errors[0]
    return found


def compared(
    old: NamedUnit, new: NamedUnit, limits: Limits, *, threshold: float = 0.0, jobs: int | None = None, on_read: Progress | None = None
) -> Difference:
    """``diff`` of what a user named. A file of several that cannot be read is in ``facts.errors``."""
    return Difference(compare(old, new, limits=limits, threshold=threshold, jobs=jobs, on_read=on_read or (lambda *_: None)))
