"""FP5xx: sizes."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.policy.rule import Rule
from fatpatch.policy.subject import Hit, RuleSubject
from fatpatch.scan.coverage import target_table

_MB = 1_000_000


def _words(size: int) -> str:
    return f"{size / _MB:.1f} MB"


def _file(subject: RuleSubject) -> Iterator[Hit]:
    limit = subject.demands.file_size
    if limit is not None and subject.node.size > limit:
        yield Hit(subject.locator, f"{_words(subject.node.size)}, at most {_words(limit)} is allowed", _ADVICE, "file")


def _code(subject: RuleSubject) -> Iterator[Hit]:
    limit = subject.demands.gpu_size
    size = sum(payload.size for payload in subject.payloads)
    if limit is not None and size > limit:
        yield Hit(subject.locator, f"{_words(size)} of GPU code, at most {_words(limit)} is allowed", _ADVICE, "gpu-code")


def _targets(subject: RuleSubject) -> Iterator[Hit]:
    limit = subject.demands.target_size
    if limit is None:
        return
    for row in target_table(subject.payloads):
        size = row.stored if row.stored is not None else row.size
        if size is not None and size > limit:
            message = f"{_words(size)} for {row.target} alone, at most {_words(limit)} is allowed"
            yield Hit(subject.locator, message, _ADVICE, row.target)


_ADVICE = "'fatpatch inspect FILE' shows the bytes by target; drop a target, or compress"
_WHY = "Package indexes and asset stores have limits, and every user downloads it."

RULES = (
    Rule("FP501", "file-too-large", "error", "the file is larger than allowed", _WHY, _file),
    Rule("FP502", "gpu-code-too-large", "error", "the file's GPU code is larger than allowed", _WHY, _code),
    Rule("FP503", "target-too-large", "error", "the code for one target is larger than allowed", _WHY, _targets),
)
