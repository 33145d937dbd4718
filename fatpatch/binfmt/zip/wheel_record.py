"""RECORD of a wheel: the lines of edited members get their new sha256 and size (reference: PEP 376, PEP 427)."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping

from fatpatch.base.errors import EditError
from fatpatch.base.overlay import Overlay
from fatpatch.base.source import Source


def is_record(name: str) -> bool:
    """Whether a member is the RECORD of a wheel."""
    parts = name.split("/")
    return len(parts) == 2 and parts[0].endswith(".dist-info") and parts[1] == "RECORD"


def new_record(old: bytes, edited: Mapping[str, Overlay], locator: str) -> Overlay:
    """The RECORD with the lines of the edited members renewed; all other lines stay byte for byte."""
    try:
        text = old.decode("utf-8")
    except UnicodeDecodeError as error:
        raise EditError("its RECORD is not UTF-8 text", locator=locator) from error
    lines = []
    for line in text.splitlines(keepends=True):
        row = _row(line)
        content = edited.get(row[0]) if len(row) == 3 else None
        if content is None:
            lines.append(line)
            continue
        ending = line[len(line.rstrip("\r\n")) :]
        written = io.StringIO()
        csv.writer(written, lineterminator=ending).writerow([row[0], _digest(content.source()), content.size])
        lines.append(written.getvalue())
    return Overlay.of(Source.of(b""), (), (Source.of("".join(lines).encode()),))


def _row(line: str) -> list[str]:
    """The fields of a line; none of one that is no CSV, which is kept as it is."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _digest(source: Source) -> str:
    digest = hashlib.sha256()
    for chunk in source.chunks():
        digest.update(chunk)
    return "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
