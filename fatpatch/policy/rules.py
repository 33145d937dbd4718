"""All rules, by id."""

from __future__ import annotations

from typing import Final

from fatpatch.base.locator import covers
from fatpatch.policy import rules_kernels, rules_run, rules_size, rules_targets
from fatpatch.policy.rule import Rule

_READING: Final = (
    Rule(
        "FP001", "unreadable-input", "error", "a file cannot be opened or read",
        "It is missing, vanished during the run, or may not be read. A gate that could not look is never green.",
    ),
    Rule(
        "FP002", "damaged-part", "error", "a part of a file is damaged",
        "A container, fatbin, bundle or image breaks its format: cut off, overwritten, or packed by a broken tool. What is damaged was "
        "not checked, so the file fails. `fatpatch inspect` names the place and the field.",
    ),
    Rule(
        "FP003", "part-not-read", "error", "a part of a file was not looked into",
        "It is encrypted, larger than a limit, nested too deeply, or says two things at once. It could hold anything.",
    ),
    Rule(
        "FP004", "no-gpu-code", "error", "a file that was named holds no GPU code, and the policy requires some",
        "A CPU-only build, or the wrong file. Files that a folder merely contains are ignored; if nothing at all holds GPU code, "
        "that is found, too.",
    ),
)  # fmt: skip
_ALLOWING: Final = (
    Rule(
        "FP901", "allowance-expired", "error", "an entry of [[allow]] is past its day",
        "It no longer covers anything. Mend what it excused, or decide anew and give another day.",
    ),
    Rule(
        "FP902", "allowance-unused", "note", "an entry of [[allow]] covers nothing",
        "What it excused is mended, or its pattern does not fit. Remove it.",
    ),
)  # fmt: skip
RULES: Final[dict[str, Rule]] = {
    rule.id: rule for rule in (*_READING, *rules_targets.RULES, *rules_run.RULES, *rules_kernels.RULES, *rules_size.RULES, *_ALLOWING)
}


def named(rule: str, word: str) -> bool:
    """Whether a word means a rule: its id, the start of it (FP1), or a pattern."""
    return rule.startswith(word) or covers(word, rule)


def selected(rule: str, select: tuple[str, ...], ignore: tuple[str, ...]) -> bool:
    """Whether a rule is asked for. Unreadable parts cannot be ignored."""
    if rule.startswith("FP00"):
        return True
    return (not select or any(named(rule, word) for word in select)) and not any(named(rule, word) for word in ignore)
