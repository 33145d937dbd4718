"""The policy that holds for a run: that of the file, and what the command line demands beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import click

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.gpus.toolkits import known_archs
from fatpatch.model.target import Target
from fatpatch.policy.policy import MustRun, Policy, find_policy, read_policy, targets
from fatpatch.policy.rules import RULES
from fatpatch.policy.rules_run import environment_for


class PolicyRequest(NamedTuple):
    """What the command line demands beside the policy file."""

    require: tuple[str, ...]
    forbid: tuple[str, ...]
    gpus: tuple[str, ...]
    driver: str | None


def policy_for(asked: PolicyRequest, path: str | None, *, look: bool) -> Policy:
    """The policy file's demands and those of the command line. A usage error for a GPU or driver that is not known."""
    found = path or (find_policy() if look else None)
    policy = Policy() if found is None else read_policy(found)
    try:
        for words in (asked.require, asked.forbid):
            targets(list(words))
    except ValueError as error:
        raise click.UsageError(f"expected {error}, got {', '.join(words)}") from error
    _check_targets((*asked.require, *asked.forbid))
    _check_names(policy)
    _check_gpus([MustRun(asked.gpus, asked.driver, ())], _usage)
    demands = policy.demands
    run = (*demands.run, MustRun(asked.gpus, asked.driver, ())) if asked.gpus else demands.run
    if asked.driver is not None and not asked.gpus:
        raise click.UsageError("--driver goes with --gpu")
    require, forbid = (tuple(dict.fromkeys(words)) for words in ((*demands.require, *asked.require), (*demands.forbid, *asked.forbid)))
    demands = demands._replace(require=require, forbid=forbid, run=run)
    return policy._replace(demands=demands)


def _check_targets(names: Sequence[str]) -> None:
    """A usage error for an NVIDIA target that no toolkit compiles, with the nearest ones: a slip must not look like a finding."""
    known = sorted(known_archs())
    for name in names:
        target = Target(name)
        if (number := target.arch) is not None and target.known_form and number not in known:
            near = sorted(known, key=lambda arch: abs(arch - number))[:3]
            hint = f"did you mean {' or '.join(f'{target.form}_{arch}' for arch in near)}?"
            raise _usage(f"no CUDA toolkit known here compiles {name}", hint)


def _check_gpus(demands: Iterable[MustRun], wrong: Callable[[str, str | None], Exception]) -> None:
    """Names are looked up before a file is read: a slip must not look like a finding."""
    for demand in demands:
        for name in demand.gpus:
            try:
                environment_for(name, demand.driver)
            except InputError as error:
                raise wrong(error.message, error.hint) from error


def _check_names(policy: Policy) -> None:
    """InputError for a GPU or rule in the policy file that does not exist."""
    where = policy.source
    runs = (*policy.demands.run, *(each for _, changes in policy.files for each in changes.get("run", ())))
    _check_gpus(runs, lambda message, hint: InputError(f"run.gpus: {message}", locator=where, hint=hint))
    for allowance in policy.allow:
        if allowance.rule not in (*RULES, "*") and "*" not in allowance.rule:
            raise InputError(f"allow: there is no rule {allowance.rule!r}", locator=where, hint="'--explain all' lists the rules")


def _usage(message: str, hint: str | None) -> click.UsageError:
    return click.UsageError(f"{message}\n  hint: {hint}" if hint else message)
