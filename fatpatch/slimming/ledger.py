"""The files that say what an installer has put where: RECORD of a distribution, and a package's document in conda-meta.

Sources: PyPA specification "Recording installed projects"; conda's documentation of conda-meta (paths_data).
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from fatpatch.base.errors import FormatError, VerifyError
from fatpatch.base.overlay import Overlay
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.transaction import undo_file
from fatpatch.edit.transaction.undo_record import digest, edit_of
from fatpatch.edit.transaction.write import write_overlay

_MAX_LEDGER = 64 << 20


class FileFacts(NamedTuple):
    """sha256 and size of a file as it is now."""

    sha256: bytes
    size: int


def facts_of(path: str) -> FileFacts:
    """Read a file whole."""
    found, size = hashlib.sha256(), 0
    source = Source.open(path)
    try:
        for chunk in source.chunks():
            found.update(chunk)
            size += len(chunk)
    finally:
        source.close()
    return FileFacts(found.digest(), size)


def record_lines(old: bytes, changed: Mapping[str, FileFacts], added: Sequence[str], locator: str) -> bytes:
    """A RECORD with new hashes and sizes for ``changed`` paths, and a line without a hash for each of those ``added`` that has none yet.

    Other lines stay byte for byte.
    """
    try:
        text = old.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError("its RECORD is not UTF-8 text", locator=locator) from error
    lines, there = list[str](), set[str]()
    for line in text.splitlines(keepends=True):
        row = _row(line)
        there.update(row[:1])
        facts = changed.get(row[0].replace("\\", "/")) if len(row) == 3 and row[1] else None
        if facts is None:
            lines.append(line)
            continue
        lines.append(_line([row[0], _hashed(facts), str(facts.size)], line[len(line.rstrip("\r\n")) :]))
    ending = "\r\n" if "\r\n" in text[:4096] else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += ending
    lines += [_line([path, "", ""], ending) for path in added if path not in there]
    return "".join(lines).encode()


def hashes_in(ledger: bytes, locator: str) -> dict[str, bytes]:
    """The SHA-256 of each file that a RECORD, or a document of conda-meta, names with one."""
    if not locator.endswith("/RECORD"):
        found = {}
        for row in _conda_rows(ledger, locator):
            with suppress(ValueError, TypeError):
                found[str(row["_path"])] = bytes.fromhex(row.get("sha256_in_prefix", ""))
        return found
    rows = (_row(line) for line in ledger.decode("utf-8", "replace").splitlines())
    return {row[0].replace("\\", "/"): _unhashed(row[1]) for row in rows if len(row) == 3 and row[1].startswith("sha256=")}


def differing(ledger: bytes, facts: Mapping[str, FileFacts], locator: str) -> frozenset[str]:
    """Those paths of ``facts`` that a ledger names with another hash."""
    hashes = hashes_in(ledger, locator)
    return frozenset(path for path, each in facts.items() if path in hashes and hashes[path] != each.sha256)


def _conda_rows(ledger: bytes, locator: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(ledger)["paths_data"]["paths"]
        return [row for row in rows if isinstance(row["_path"], str)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"is not a conda-meta document: {error}", locator=locator) from error


def _unhashed(text: str) -> bytes:
    """The hash that RECORD writes so; nothing where that is none."""
    try:
        return base64.urlsafe_b64decode(text.removeprefix("sha256=") + "=")
    except ValueError:
        return b""


def conda_document(old: bytes, changed: Mapping[str, FileFacts], locator: str) -> bytes:
    """A document of conda-meta with what changed: ``sha256_in_prefix`` and the size of each path. The package's own hash stays."""
    try:
        document: dict[str, Any] = json.loads(old)
        for row in document["paths_data"]["paths"]:
            facts = changed.get(row["_path"])
            if facts is not None:
                row["sha256_in_prefix"] = facts.sha256.hex()
                row["size_in_bytes"] = facts.size
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"is not a conda-meta document: {error}", locator=locator) from error
    return json.dumps(document, indent=2, ensure_ascii=False).encode()


def read_ledger(path: str) -> bytes:
    """The bytes of a ledger. FormatError when it is absurdly large."""
    source = Source.open(path)
    try:
        if source.size > _MAX_LEDGER:
            raise FormatError(f"has {source.size:#x} bytes", locator=path)
        return source.read(0, source.size)
    finally:
        source.close()


def replace_file(path: str, content: bytes, *, record: bool) -> None:
    """Give a small file new content, whole or not at all; with ``record`` its undo record keeps the old one."""
    source = Source.open(path)
    try:
        if source.read(0, source.size) == content:
            return
        overlay = Overlay.of(source, (), (Source.of(content),), 0)
        edits = undo_file.standing(source, undo_file.load(path), path).done
        edit = edit_of(overlay, os.stat(path).st_mtime_ns, digest(source))

        def verify(temporary: str) -> None:
            with open(temporary, "rb") as stream:
                if stream.read() != content:
                    raise VerifyError("the result is not as planned, nothing was written", locator=path)
            if record:
                undo_file.save(path, (*edits, edit))

        write_overlay(overlay, path, like=path, replace=True, verify=verify)
    finally:
        source.close()


def _hashed(facts: FileFacts) -> str:
    """As RECORD writes it."""
    return "sha256=" + base64.urlsafe_b64encode(facts.sha256).rstrip(b"=").decode()


def _line(row: Sequence[str], ending: str) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator=ending).writerow(row)
    return written.getvalue()


def _row(line: str) -> list[str]:
    """The fields of a line; none of one that is no CSV, which is kept as it is."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
