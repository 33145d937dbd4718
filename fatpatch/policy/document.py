"""The document of schema fatpatch.check/1."""

from __future__ import annotations

from typing import Any

from fatpatch import __version__
from fatpatch.policy.finding import LEVELS, Finding
from fatpatch.policy.run import CheckOutcome

SCHEMA = "fatpatch.check/1"


def document(outcome: CheckOutcome, *, failed: bool, policy: str) -> dict[str, Any]:
    """The document of schema fatpatch.check/1."""
    return {
        "schema": SCHEMA,
        "tool_version": __version__,
        "policy": policy or None,
        "failed": failed,
        "counts": {level: sum(finding.level == level for finding in outcome.findings) for level in reversed(LEVELS)},
        "files": [
            {
                "path": file.shown,
                "holders": file.holders,
                "distribution": file.distribution or None,
                **({"slimmed": list(file.slimmed)} if file.slimmed else {}),
            }
            for file in outcome.files
        ],
        "findings": [_row(finding) for finding in outcome.findings],
        "allowed": [_row(finding) for finding in outcome.allowed],
        "baseline": [_row(finding) for finding in outcome.known],
    }


def _row(finding: Finding) -> dict[str, Any]:
    row = finding._asdict()
    return {**row, **{key: row[key] or None for key in ("remedy", "key", "distribution")}, "fingerprint": finding.fingerprint}
