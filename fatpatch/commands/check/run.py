"""What ``check`` asks for, checked; the explanations, and the words about the first policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from fatpatch.api.gate import FILE, RULES, GateRequest, rule_named, selects_a_rule, write_policy
from fatpatch.api.naming import NamedUnit
from fatpatch.base.limits import Limits
from fatpatch.base.shell_word import shell_word
from fatpatch.base.words import columns, plural, safe
from fatpatch.commands.check.text import explanation

Writer = Callable[[str], object]


def refuse_unknown(request: GateRequest) -> None:
    """A usage error for a rule that does not exist, and where there is no policy or requirement."""
    if reading := [word for word in request.ignore if word.startswith("FP00")]:
        raise click.UsageError(f"{reading[0]}: what could not be read is never ignored")
    if not request.policy.source and not request.policy.demanding and not request.select:
        hint = "--init writes a policy; '--select FP0' looks for unreadable parts only"
        raise click.UsageError(f"no policy or requirement given: give --require, --gpu or --policy\n  hint: {hint}")
    for word in (*request.select, *request.ignore):
        if not selects_a_rule(word):
            raise click.UsageError(f"no rule is called {word}; '--explain all' lists them")


def explain(word: str, out: Writer) -> int:
    """The page of one rule, or the list of all."""
    if word.lower() == "all":
        rows = [(rule.id, rule.level, rule.name, rule.summary) for _, rule in sorted(RULES.items())]
        out("".join(f"{line}\n" for line in columns(("rule", "level", "name", "what it finds"), rows, left=frozenset(range(4)))))
        return 0
    rule = rule_named(word)
    if rule is None:
        raise click.UsageError(f"there is no rule {word!r}; '--explain all' lists them")
    out("".join(f"{line}\n" for line in explanation(rule)))
    return 0


def first_policy(units: Sequence[NamedUnit], path: str | None, limits: Limits, out: Writer) -> int:
    """Write a policy of what the files hold, and say how to check against it."""
    target = path or FILE
    count = write_policy(units, target, limits)
    words = ["fatpatch", "check", *map(_word, units), *([] if target == FILE else ["--policy", target])]
    out(f"wrote {target}: {plural(count, 'file')} with GPU code; now run: {safe(' '.join(map(shell_word, words)))}\n")
    return 0


def _word(unit: NamedUnit) -> str:
    """As a user names the unit."""
    return unit.shown if unit.distribution is None else unit.distribution.name
