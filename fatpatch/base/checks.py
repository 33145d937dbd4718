"""One named check and its answer."""

from __future__ import annotations

from collections.abc import Iterable

from fatpatch.base.records import NamedTuple

_SHOWN = 3


class CheckResult(NamedTuple):
    """``detail`` says what is wrong, "" when nothing is."""

    name: str
    ok: bool
    detail: str


def check_of(name: str, problems: Iterable[str]) -> CheckResult:
    """The check that holds when there are no problems."""
    found = list(problems)
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return CheckResult(name, not found, "; ".join(found[:_SHOWN]) + more)
