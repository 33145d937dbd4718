"""All that the page of some files shows: their GPU code, how every GPU fares with it, and what the gate finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

from fatpatch.base.errors import FatpatchError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.model.tree import Diagnostic, ModelFacts, Node
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.policy.finding import Finding
from fatpatch.policy.policy import Policy
from fatpatch.policy.rules import RULES
from fatpatch.policy.run import FileCheck, Selection, outcome_of
from fatpatch.release.words import outcome_words
from fatpatch.remote.inputs import Input
from fatpatch.scan.coverage import holders, stored_share
from fatpatch.scan.slim_marks import marks_below
from fatpatch.verdicts.all_gpus import Answer, answers
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.library_facts import STUB, Cell, LibraryFacts, listed, read_whole
from fatpatch.verdicts.outcome import HOPELESS, OUTCOMES

__all__ = [
    "HOPELESS",
    "OUTCOMES",
    "STUB",
    "Answer",
    "Block",
    "Cell",
    "Finding",
    "Holder",
    "LibraryFacts",
    "ReportContents",
    "contents",
    "outcome_words",
]

OnRead = Callable[[str, int, int], None]


class Block(NamedTuple):
    """The stored bytes of one module, with its kernels, for one target."""

    module: str
    kernels: frozenset[str]
    target: str
    size: int


class Holder(NamedTuple):
    """One file or member that holds GPU code. ``answers``: by target, for the vendors whose code it has."""

    name: str
    facts: LibraryFacts
    answers: Mapping[str, Answer]
    blocks: tuple[Block, ...]
    model: ModelFacts | None
    slimmed: tuple[str, ...] = ()


class ReportContents(NamedTuple):
    """``shown``: the files as they were named; ``findings``: of the gate, and of images that could not be read.

    ``policy`` is the file that they are held against, empty where there is none.
    """

    shown: tuple[str, ...]
    holders: tuple[Holder, ...]
    findings: tuple[Finding, ...]
    policy: str


def contents(inputs: Sequence[Input], policy: Policy, limits: Limits, *, jobs: int | None, on_read: OnRead) -> ReportContents:
    """Read every file, once. One that cannot be read is a finding; FatpatchError when it is the only one."""
    found: list[Holder] = []
    complaints: list[Finding] = []
    checks: list[FileCheck] = []

    def unreadable(error: FatpatchError) -> None:
        if len(inputs) == 1:
            raise error
        checks[-1].unreadable(error)

    reading = UnitReader(limits, unreadable, lambda shown: nullcontext(on_read))
    for each in inputs:
        checks.append(FileCheck(each, policy, Selection(), limits, jobs))
        for unit, node, _ in reading.each(as_units([each])):
            with reading.guarded(unit.path, unit.shown):
                owner = each.distribution
                name = f"{unit.shown} ({owner})" if owner and owner not in unit.shown else unit.shown
                for holder in _holders(node, name, limits, jobs):
                    found.append(holder)
                    complaints += [_finding(unit.shown, item) for item in holder.facts.complaints]
                checks[-1].read(node)
    checked = outcome_of([check.result() for check in checks], policy, Selection()).findings
    known = {(finding.locator, finding.message) for finding in checked}
    extra = [finding for finding in complaints if (finding.locator, finding.message) not in known]
    return ReportContents(tuple(each.shown for each in inputs), tuple(found), (*checked, *extra), policy.source)


def _holders(root: Node, shown: str, limits: Limits, jobs: int | None) -> Iterator[Holder]:
    doctor = Doctor(root, limit=limits.image)
    found_answers = answers(doctor)
    slimmed = tuple(mark.words for mark in marks_below(root))
    for node in holders(root):
        facts = read_whole(listed(node, "" if node is root else node.path, shown), node, doctor.reader, jobs=jobs)
        name = shown if node is root else f"{shown}: {node.path}"
        yield Holder(name, facts, found_answers.get(node.locator, {}), tuple(_blocks(node, facts)), doctor.model, slimmed)


def _blocks(node: Node, facts: LibraryFacts) -> Iterator[Block]:
    """Parts of a blob that several images share are counted by their share of its unpacked bytes."""
    for payload, module in zip(node.payloads, facts.modules, strict=True):
        step = payload.locator.rsplit("!", 1)[-1]
        for image in payload.images:
            yield Block(step, module.names, image.target, stored_share(image))


def _finding(file: str, item: Diagnostic) -> Finding:
    rule = "FP002" if item.level == "error" else "FP003"
    return Finding(rule, RULES[rule].level, file, item.locator, item.message, "", item.field or "")
