"""One remedy, and what may serve as a donor or a replacement."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.results import FileVerdict


class Remedy(NamedTuple):
    """``works``: True, False, or None when that hangs on what is not known here. ``command`` is None when there is none to type.

    ``asked``: the answer about a candidate that the user named.
    """

    title: str
    command: str | None
    works: bool | None
    why: str
    asked: bool = False


class Candidate(NamedTuple):
    """Another file, as the user named it, with its verdict on the same GPU."""

    shown: str
    doctor: Doctor
    verdict: FileVerdict
