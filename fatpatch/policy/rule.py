"""What a rule is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fatpatch.base.records import NamedTuple
from fatpatch.policy.subject import Hit, RuleSubject


class Rule(NamedTuple):
    """``applies`` and ``check`` are None for rules that the run itself applies. ``explanation``: what it finds, why, and what to do."""

    id: str
    name: str
    level: str
    summary: str
    explanation: str
    check: Callable[[RuleSubject], Iterable[Hit]] | None = None
