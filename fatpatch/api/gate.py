"""Files held against a policy: what it demands, what was found, and the first policy, written from what files hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from fatpatch.api.documents import plain
from fatpatch.base.errors import EditError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.base.writing import write_file
from fatpatch.gpus.toolkits import known_archs
from fatpatch.model.target import Target
from fatpatch.model.tree import Node
from fatpatch.named.reading import UnitReader, as_units
from fatpatch.named.unit import NamedUnit, files_of
from fatpatch.policy import document as check_document
from fatpatch.policy.baseline import read_baseline, write_baseline
from fatpatch.policy.finding import LEVELS, Finding, fails
from fatpatch.policy.policy import FILE, MustRun, Policy, find_policy, read_policy, targets
from fatpatch.policy.rule import Rule
from fatpatch.policy.rules import RULES, named
from fatpatch.policy.rules_run import environment_for
from fatpatch.policy.run import CheckOutcome, Selection, check_files
from fatpatch.policy.starter import starter
from fatpatch.scan.coverage import holders

__all__ = [
    "FILE",
    "LEVELS",
    "RULES",
    "Check",
    "CheckOutcome",
    "DemandError",
    "Finding",
    "GateRequest",
    "Policy",
    "PolicyRequest",
    "Rule",
    "fails",
    "fleets",
    "gate",
    "policy_for",
    "rule_named",
    "selects_a_rule",
    "write_baseline",
    "write_policy",
]


class PolicyRequest(NamedTuple):
    """Requirements beside those of the policy file."""

    require: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    driver: str | None = None


class DemandError(InputError):
    """A requirement beside those of the policy file names no known target or GPU."""


def policy_for(demanded: PolicyRequest, path: str | None, *, look: bool) -> Policy:
    """The policy file's demands and those beside it; with ``look`` the file is looked for where none is named.

    DemandError for a target, GPU or driver that is not known; InputError for a policy file that names one, or cannot be read.
    """
    found = path or (find_policy() if look else None)
    policy = Policy() if found is None else read_policy(found)
    try:
        for words in (demanded.require, demanded.forbid):
            targets(list(words))
    except ValueError as error:
        raise DemandError(f"expected {error}, got {', '.join(words)}") from error
    _check_targets((*demanded.require, *demanded.forbid))
    _check_names(policy)
    run = MustRun(demanded.gpus, demanded.driver, ())
    try:
        _check_gpus([run])
    except InputError as error:
        raise DemandError(error.message, hint=error.hint) from error
    demands = policy.demands
    require, forbid = (
        tuple(dict.fromkeys(words)) for words in ((*demands.require, *demanded.require), (*demands.forbid, *demanded.forbid))
    )
    demands = demands._replace(require=require, forbid=forbid, run=(*demands.run, run) if demanded.gpus else demands.run)
    return policy._replace(demands=demands)


def _check_targets(names: Sequence[str]) -> None:
    """DemandError for an NVIDIA target that no toolkit compiles, with the nearest ones: a slip must not look like a finding."""
    known = sorted(known_archs())
    for name in names:
        target = Target(name)
        if (number := target.arch) is not None and target.known_form and number not in known:
            near = sorted(known, key=lambda arch: abs(arch - number))[:3]
            hint = f"did you mean {' or '.join(f'{target.form}_{arch}' for arch in near)}?"
            raise DemandError(f"no CUDA toolkit known here compiles {name}", hint=hint)


def _check_gpus(demands: Iterable[MustRun]) -> None:
    """Names are looked up before a file is read: a slip must not look like a finding."""
    for demand in demands:
        for name in demand.gpus:
            environment_for(name, demand.driver)


def _check_names(policy: Policy) -> None:
    """InputError for a GPU or rule in the policy file that does not exist."""
    where = policy.source
    try:
        _check_gpus((*policy.demands.run, *(each for _, changes in policy.files for each in changes.get("run", ()))))
    except InputError as error:
        raise InputError(f"run.gpus: {error.message}", locator=where, hint=error.hint) from error
    for allowance in policy.allow:
        if allowance.rule not in (*RULES, "*") and "*" not in allowance.rule:
            raise InputError(f"allow: there is no rule {allowance.rule!r}", locator=where, hint="'--explain all' lists the rules")


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

    @property
    def policy(self) -> str:
        """The policy file; empty where the requirements were given without one."""
        return self._policy

    @property
    def fail_on(self) -> str:
        """The level from which on a finding fails."""
        return self._fail_on

    def to_dict(self) -> dict[str, Any]:
        """The document of schema fatpatch.check/1."""
        return plain(check_document.document(self.facts, failed=not self, policy=self._policy))


class GateRequest(NamedTuple):
    """A policy, which of its rules, from which level on one fails, and the known findings of a ``baseline`` file."""

    policy: Policy
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    fail_on: str = "error"
    baseline: str | None = None


def gate(units: Sequence[NamedUnit], request: GateRequest, limits: Limits, jobs: int | None = None) -> Check:
    """Check the files of the units. InputError for a baseline that cannot be read."""
    known = frozenset[str]() if request.baseline is None else read_baseline(request.baseline)
    outcome = check_files(
        files_of(units),
        request.policy,
        Selection(request.select, request.ignore),
        limits,
        given=[unit.shown for unit in units],
        baseline=known,
        jobs=jobs,
    )
    return Check(outcome, request.policy.source, request.fail_on)


def rule_named(word: str) -> Rule | None:
    """The rule of an id or a name."""
    return RULES.get(word.upper()) or next((rule for rule in RULES.values() if rule.name == word.lower()), None)


def selects_a_rule(word: str) -> bool:
    """Whether a word of a selection names at least one rule."""
    return any(named(rule, word) for rule in RULES)


def write_policy(units: Sequence[NamedUnit], path: str, limits: Limits) -> int:
    """Write a policy of what the files hold; how many there are. A file that cannot be read ends it, since its promise is not known."""
    if os.path.lexists(path):
        raise EditError("exists already", locator=path, hint="give another name with --policy, or remove it")
    promised: list[tuple[str, Node]] = []
    for unit, root, _ in UnitReader(limits).each(as_units(files_of(units))):
        promised += [(unit.shown if node is root else node.path, node._replace(source=None)) for node in holders(root)]
    if not promised:
        message = "no file has GPU code: there is nothing to require"
        raise InputError(message, locator=units[0].shown, hint="look whether the right files were given")
    last_of_a_name = {name: (name, node) for name, node in promised}
    write_file(path, [piece.encode() for piece in starter(list(last_of_a_name.values()))], replace=False)
    return len(promised)


def fleets(path: str | None) -> tuple[str, dict[str, tuple[str, ...]]] | None:
    """The policy file, looked for where none is named, and the lists of GPUs in it; None where there is no file."""
    source = path or find_policy()
    return None if source is None else (source, dict(read_policy(source).fleets))
