"""One run of the gate: every file read, held against the policy, and what was found sorted and sifted."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import covers
from fatpatch.base.records import NamedTuple
from fatpatch.base.workers import in_order
from fatpatch.model.kinds import VENDOR_WORDS
from fatpatch.model.target import Target
from fatpatch.model.tree import Node
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.policy.finding import Finding
from fatpatch.policy.policy import Allowance, Demands, Policy, fits
from fatpatch.policy.rules import RULES, selected
from fatpatch.policy.rules_run import check_runs, environment_for
from fatpatch.policy.subject import Hit, Inspected, RuleSubject
from fatpatch.remote.inputs import Input
from fatpatch.scan.coverage import all_diagnostics
from fatpatch.scan.slim_marks import marks_below
from fatpatch.scan.survey import complaint_of


class Selection(NamedTuple):
    """Which rules: ids, starts of ids, or patterns; no ``select`` means all."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()


class FileResult(NamedTuple):
    """What one file gave: its findings, how many holders of GPU code it has, and whose code they hold.

    ``origin`` is the folder or pattern that it was met in; ``promised`` are the patterns of the policy that it fits; ``release``:
    whether it is an archive, or was met in a folder, so that more than this file was meant. ``slimmed``: what slim left of it, in words.
    """

    shown: str
    findings: tuple[Finding, ...]
    holders: int
    vendors: frozenset[str]
    origin: str
    promised: frozenset[str]
    release: bool
    distribution: str = ""
    slimmed: tuple[str, ...] = ()


class CheckOutcome(NamedTuple):
    """The whole run. ``allowed`` and ``known`` are findings that the policy allows or that the baseline holds."""

    files: tuple[FileResult, ...]
    findings: tuple[Finding, ...]
    allowed: tuple[Finding, ...]
    known: tuple[Finding, ...]


def check_files(
    inputs: Sequence[Input],
    policy: Policy,
    selection: Selection,
    limits: Limits,
    *,
    given: Sequence[str] = (),
    baseline: frozenset[str] = frozenset(),
    jobs: int | None = None,
    today: datetime.date | None = None,
) -> CheckOutcome:
    """Check every file, in processes when there are several; the order of the results is that of the inputs.

    ``given``: the files and folders as the user named them, each of which must hold something to check.
    """
    files = tuple(_all(inputs, policy, selection, limits, jobs))
    return outcome_of(files, policy, selection, given=given, baseline=baseline, today=today)


def outcome_of(
    files: Sequence[FileResult],
    policy: Policy,
    selection: Selection,
    *,
    given: Sequence[str] = (),
    baseline: frozenset[str] = frozenset(),
    today: datetime.date | None = None,
) -> CheckOutcome:
    """What files gave, and what is of all of them, sifted by the allowances of the policy and the baseline."""
    found = [finding for file in files for finding in file.findings]
    found += _nothing_at_all(files, given, policy, selection)
    found += _missing_files(files, policy, selection)
    left, allowed, extra = _allow(found, policy.allow, policy.source, today or datetime.date.today(), selection)
    known = tuple(finding for finding in left if _is_known(finding, baseline))
    fresh = tuple(finding for finding in left if not _is_known(finding, baseline))
    return CheckOutcome(tuple(files), (*fresh, *extra), tuple(allowed), known)


def _all(inputs: Sequence[Input], policy: Policy, selection: Selection, limits: Limits, jobs: int | None) -> Iterator[FileResult]:
    alone = len(inputs) == 1
    check = partial(check_file, policy=policy, selection=selection, limits=limits, jobs=jobs if alone else 1)
    yield from in_order(check, inputs, min(jobs or os.cpu_count() or 1, len(inputs)))


def _is_known(finding: Finding, baseline: frozenset[str]) -> bool:
    return finding.fingerprint in baseline and not finding.rule.startswith("FP00")


def check_file(given: Input, policy: Policy, selection: Selection, limits: Limits, *, jobs: int | None = None) -> FileResult:
    """All findings of one file. What cannot be read is a finding, never silence; so every image is read."""
    check = FileCheck(given, policy, selection, limits, jobs)
    reading = UnitReader(limits, check.unreadable)
    for _, root, _ in reading.each(as_units([given])):
        with reading.guarded(given.path, given.shown):
            check.read(root)
    return check.result()


class FileCheck:
    """The findings of one file, which somebody else opens: ``read`` takes its tree, ``unreadable`` an error that ends it."""

    def __init__(self, given: Input, policy: Policy, selection: Selection, limits: Limits, jobs: int | None) -> None:
        self.given, self.policy, self.selection = given, policy, selection
        self._limits, self._jobs = limits, jobs
        self._findings: list[Finding] = []
        self._nodes: list[Node] = []
        self._slimmed: tuple[str, ...] = ()
        self._release = not given.named and not any(char in given.origin for char in "*?[")

    def unreadable(self, error: FatpatchError) -> None:
        """The file, or the rest of it, cannot be read."""
        self._add("FP001", Hit(error.locator, error.message, error.hint or "", "unreadable"))

    def read(self, root: Node) -> None:
        """Hold the open file against the policy."""
        given, policy = self.given, self.policy
        for rule, hit in _reading(root):
            self._add(rule, hit)
        inside = Inspected(given.shown, root, self._limits.image, self._jobs)
        self._nodes = inside.holders
        self._slimmed = tuple(mark.words for mark in marks_below(root))
        self._release = self._release or bool(root.members)
        for holder in self._nodes:
            meant = given.named or policy.names(given.shown) or policy.names(holder.path)
            demands = demands_on(policy, given.shown, holder)
            for rule, hit in _hits(RuleSubject(inside, holder, demands, meant=meant)):
                self._add(rule, hit)
        if not self._nodes and given.named and policy.for_file(given.shown) != Demands():
            self._add("FP004", Hit(root.locator, "holds no GPU code", "give the file that holds it", "no-gpu-code"))

    def result(self) -> FileResult:
        """All that was found."""
        given, nodes = self.given, self._nodes
        vendors = frozenset(payload.vendor for holder in nodes for payload in holder.payloads)
        paths = (given.shown, *(node.path for node in nodes)) if nodes else ()
        promised = frozenset(pattern for pattern, _ in self.policy.files if any(fits(path, pattern) for path in paths))
        place = given.origin, promised, self._release, given.distribution
        return FileResult(given.shown, tuple(self._findings), len(nodes), vendors, *place, self._slimmed)

    def _add(self, rule: str, hit: Hit) -> None:
        if selected(rule, *self.selection):
            given, level = self.given, RULES[rule].level
            self._findings.append(Finding(rule, level, given.shown, hit.locator, hit.message, hit.remedy, hit.key, given.distribution))


def demands_on(policy: Policy, shown: str, node: Node) -> Demands:
    """The demands on a holder: by the file's path, and by that of the member inside it."""
    demands = policy.for_file(shown)
    member = node.path if node.path != shown else None
    for pattern, changes in policy.files:
        if member is not None and fits(member, pattern) and not fits(shown, pattern):
            demands = demands._replace(**changes)
    return demands


def _reading(root: Node) -> Iterator[tuple[str, Hit]]:
    for item in all_diagnostics(root):
        if item.level != "note":
            what = f"{item.field}: " if item.field else ""
            at = "" if item.offset is None else f" at {item.offset:#x}"
            yield "FP002" if item.level == "error" else "FP003", Hit(item.locator, f"{what}{item.message}{at}", "", item.field or "")


def _hits(subject: RuleSubject) -> Iterator[tuple[str, Hit]]:
    for rule in RULES.values():
        if rule.check is not None:
            yield from ((rule.id, hit) for hit in rule.check(subject))
    yield from check_runs(subject)
    for _, image, reading in subject.readings:
        if (complaint := complaint_of(image, reading)) is not None:
            which = "FP002" if complaint.level == "error" else "FP003"
            yield which, Hit(complaint.locator, complaint.message, "", complaint.field or "")


def _nothing_at_all(files: Sequence[FileResult], given: Sequence[str], policy: Policy, selection: Selection) -> Iterator[Finding]:
    """Folders in which nothing holds what is required: a gate that checked nothing is not green."""
    if not policy.demanding:
        return
    for origin in given:
        mine = [file for file in files if file.origin == origin]
        if not any(file.holders or file.findings for file in mine):
            message = f"no GPU code in any of its files ({len(mine)})" if mine else "there is no file to check"
            yield _of_run("FP004", origin, message, "no-gpu-code", "look whether the right files were given")
    there = frozenset[str]().union(*(file.vendors for file in files))
    if not there or any(finding.rule.startswith("FP00") for file in files for finding in file.findings):
        return
    if any(finding.rule in ("FP101", "FP304") for file in files for finding in file.findings):
        return
    wanted: list[str] = [Target(target).vendor for target in policy.demands.require]
    wanted += [environment_for(name, None).device.vendor for demand in policy.demands.run for name in demand.gpus]
    for vendor in dict.fromkeys(wanted):
        if vendor not in there:
            message = f"no code for {VENDOR_WORDS[vendor]} GPUs in any file ({len(files)})"
            yield _of_run("FP004", files[0].origin or files[0].shown, message, vendor, "look whether the right files were given")


def _missing_files(files: Sequence[FileResult], policy: Policy, selection: Selection) -> Iterator[Finding]:
    """Files that the policy names, by a pattern without a star: what is promised must be there."""
    if not any(file.release for file in files):
        return
    there = frozenset[str]().union(*(file.promised for file in files))
    for pattern, _ in policy.files:
        if pattern not in there and not any(char in pattern for char in "*?") and selected("FP104", *selection):
            message = f"no file with GPU code is called {pattern}, which the policy names"
            remedy = "put it back, or take it out of [[files]]; where only a part of a release is checked: --ignore FP104"
            yield _of_run("FP104", policy.source or pattern, message, pattern, remedy)


def _of_run(rule: str, where: str, message: str, key: str, remedy: str) -> Finding:
    return Finding(rule, RULES[rule].level, where, where, message, remedy, key)


def _allow(
    found: Iterable[Finding], allow: Sequence[Allowance], source: str, today: datetime.date, selection: Selection
) -> tuple[list[Finding], list[Finding], list[Finding]]:
    """(what is left, what is allowed, findings about the allowances themselves)."""
    left: list[Finding] = []
    allowed: list[Finding] = []
    extra: list[Finding] = []
    used: set[int] = set()
    for finding in found:
        fitting = [index for index, each in enumerate(allow) if _covered(finding, each)]
        used.update(fitting)
        alive = any(allow[index].expires >= today for index in fitting)
        (allowed if alive and not finding.rule.startswith("FP00") else left).append(finding)
    for index, each in enumerate(allow):
        where = f"allow[{index}] ({each.rule} for {each.file}: {each.reason})"
        if each.expires < today and index in used:
            extra.append(_of_policy("FP901", source, where, f"expired on {each.expires}"))
        elif index not in used:
            extra.append(_of_policy("FP902", source, where, "covers nothing that was found"))
    return left, allowed, [finding for finding in extra if selected(finding.rule, *selection)]


def _covered(finding: Finding, allowance: Allowance) -> bool:
    return covers(allowance.rule, finding.rule) and fits(finding.file, allowance.file) and covers(allowance.locator, finding.locator)


def _of_policy(rule: str, source: str, where: str, message: str) -> Finding:
    return Finding(rule, RULES[rule].level, source, source, f"{where} {message}", "", where)
