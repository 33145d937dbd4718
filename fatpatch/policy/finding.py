"""One thing that a rule has found."""

from __future__ import annotations

import hashlib
from typing import Final

from fatpatch.base.locator import SEPARATOR, without_numbers
from fatpatch.base.records import NamedTuple

LEVELS: Final = ("note", "warning", "error")
"""From the least to the most serious."""


class Finding(NamedTuple):
    """``file`` as the user named it; ``locator`` the place in it. ``key`` is what tells it from others of its rule at that place.

    ``remedy`` is what to do, empty where the message says it. ``distribution``: the installed package of the file, empty for none.
    """

    rule: str
    level: str
    file: str
    locator: str
    message: str
    remedy: str = ""
    key: str = ""
    distribution: str = ""

    @property
    def fingerprint(self) -> str:
        """The same from run to run and from version to version, whatever the numbers in the message and in the file's name are."""
        inside = self.locator.split(SEPARATOR)[1:]
        place = "\0".join((self.rule, without_numbers(self.file), *inside, self.key))
        return hashlib.sha256(place.encode("utf-8", "backslashreplace")).hexdigest()[:32]


def fails(finding: Finding, limit: str) -> bool:
    """Whether a finding fails a run: it is serious enough, or something was not read."""
    return at_least(finding.level, limit) or finding.rule.startswith("FP00")


def at_least(level: str, limit: str) -> bool:
    """Whether a level is as serious as ``limit``; nothing is as serious as "never"."""
    return limit in LEVELS and LEVELS.index(level) >= LEVELS.index(limit)
