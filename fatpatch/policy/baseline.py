"""Old debts: the fingerprints of findings that are known, so that only new ones fail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.json_text import json_object
from fatpatch.base.writing import write_file
from fatpatch.policy.finding import Finding

SCHEMA: Final = "fatpatch.baseline/1"
_MAX_SIZE = 64 << 20


def read_baseline(path: str) -> frozenset[str]:
    """The fingerprints in a file. InputError when it is none of ours."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(_MAX_SIZE + 1)
    except OSError as error:
        raise InputError(f"cannot open: {error.strerror}", locator=path, hint="--write-baseline FILE writes one") from error
    document = json_object(data) if len(data) <= _MAX_SIZE else {}
    if document.get("schema") != SCHEMA or not isinstance(document.get("findings"), list):
        raise InputError(f"is not a baseline ({SCHEMA})", locator=path, hint="--write-baseline FILE writes one")
    rows = [row for row in document["findings"] if isinstance(row, dict)]
    return frozenset(str(row.get("fingerprint")) for row in rows)


def write_baseline(path: str, findings: Iterable[Finding]) -> int:
    """Write the findings that may be known: not the unreadable, which nobody can know. How many were written."""
    rows = [
        {"fingerprint": each.fingerprint, "rule": each.rule, "file": each.file, "locator": each.locator, "message": each.message}
        for each in findings
        if not each.rule.startswith("FP00")
    ]
    if os.path.lexists(path):
        read_baseline(path)  # only a baseline is written over
    document = {"schema": SCHEMA, "findings": sorted(rows, key=lambda row: (row["file"], row["rule"], row["locator"], row["fingerprint"]))}
    write_file(path, [json.dumps(document, indent=1).encode(), b"\n"], replace=True)
    return len(rows)
