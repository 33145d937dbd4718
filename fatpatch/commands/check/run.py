"""One run of ``check``: the policy from file and options, the files, the explanations, the first policy."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import click

from fatpatch.base.errors import EditError, FatpatchError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.base.records import NamedTuple
from fatpatch.base.shell_word import shell_word
from fatpatch.base.words import columns, plural, safe
from fatpatch.base.writing import write_file
from fatpatch.commands._shared.progress import Progress
from fatpatch.commands.check.text import explanation
from fatpatch.model.tree import Node
from fatpatch.named.unit import NamedUnit, files_of
from fatpatch.policy.baseline import read_baseline
from fatpatch.policy.finding import fails
from fatpatch.policy.policy import FILE, Policy
from fatpatch.policy.rules import RULES, named
from fatpatch.policy.run import CheckOutcome, Selection, check_files
from fatpatch.policy.starter import starter
from fatpatch.scan.coverage import holders
from fatpatch.scan.walk import inspected

Writer = Callable[[str], object]


class Gate(NamedTuple):
    """A policy with the choices of the command line."""

    policy: Policy
    select: tuple[str, ...]
    ignore: tuple[str, ...]
    fail_on: str
    limits: Limits
    jobs: int | None

    def check(self, units: Sequence[NamedUnit], baseline: str | None) -> CheckOutcome:
        """Check the files; a usage error for a rule that does not exist."""
        if reading := [word for word in self.ignore if word.startswith("FP00")]:
            raise click.UsageError(f"{reading[0]}: what could not be read is never ignored")
        if not self.policy.source and not self.policy.demanding and not self.select:
            hint = "--init writes a policy; '--select FP0' looks for unreadable parts only"
            raise click.UsageError(f"no policy or requirement given: give --require, --gpu or --policy\n  hint: {hint}")
        for word in (*self.select, *self.ignore):
            if not any(named(rule, word) for rule in RULES):
                raise click.UsageError(f"no rule is called {word}; '--explain all' lists them")
        inputs = files_of(units)
        known = frozenset[str]() if baseline is None else read_baseline(baseline)
        with Progress(units[0].shown):
            given = [unit.shown for unit in units]
            chosen = Selection(self.select, self.ignore)
            return check_files(inputs, self.policy, chosen, self.limits, given=given, baseline=known, jobs=self.jobs)

    def failed(self, outcome: CheckOutcome) -> bool:
        """Whether something is at least as serious as what fails; the unreadable always is."""
        return any(fails(finding, self.fail_on) for finding in outcome.findings)


def explain(word: str, out: Writer) -> int:
    """The page of one rule, or the list of all."""
    if word.lower() == "all":
        rows = [(rule.id, rule.level, rule.name, rule.summary) for _, rule in sorted(RULES.items())]
        out("".join(f"{line}\n" for line in columns(("rule", "level", "name", "what it finds"), rows, left=frozenset(range(4)))))
        return 0
    rule = RULES.get(word.upper()) or next((rule for rule in RULES.values() if rule.name == word.lower()), None)
    if rule is None:
        raise click.UsageError(f"there is no rule {word!r}; '--explain all' lists them")
    out("".join(f"{line}\n" for line in explanation(rule)))
    return 0


def write_policy(units: Sequence[NamedUnit], path: str | None, limits: Limits, out: Writer) -> int:
    """Write a policy of what the files hold; a file that cannot be read ends it, since its promise is not known."""
    target = path or FILE
    if os.path.lexists(target):
        raise EditError("exists already", locator=target, hint="give another name with --policy, or remove it")
    promised: list[tuple[str, Node]] = []
    for each in files_of(units):
        try:
            with inspected(each.path, name=file_name(each.shown), limits=limits) as root:
                found = [(each.shown if node is root else node.path, node) for node in holders(root)]
                promised += [(name, node._replace(source=None)) for name, node in found]
        except FatpatchError as error:
            error.locator = error.locator or each.shown
            raise
    if not promised:
        message = "no file has GPU code: there is nothing to require"
        raise InputError(message, locator=units[0].shown, hint="look whether the right files were given")
    write_file(target, [piece.encode() for piece in starter(_distinct(promised))], replace=False)
    out(f"wrote {target}: {plural(len(promised), 'file')} with GPU code; now run: {_command(units, target)}\n")
    return 0


def _command(units: Sequence[NamedUnit], policy: str) -> str:
    words = ["fatpatch", "check", *(_word(unit) for unit in units), *([] if policy == FILE else ["--policy", policy])]
    return safe(" ".join(map(shell_word, words)))


def _word(unit: NamedUnit) -> str:
    """As a user names the unit."""
    return unit.shown if unit.distribution is None else unit.distribution.name


def _distinct(holders: Sequence[tuple[str, Node]]) -> list[tuple[str, Node]]:
    """One row a name; of several files of a name the last counts, as in a policy."""
    return list({name: (name, node) for name, node in holders}.values())
