"""What every format module is made of: a DOC, structures with a description on each field, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from construct import Construct, Struct


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatDoc:
    """The documentation of one format; ``layouts`` are (title, structure), printed from their own fields."""

    name: str
    title: str
    summary: str
    layouts: tuple[tuple[str, Struct], ...] = ()
    values: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()
    notes: tuple[str, ...] = ()
    references: tuple[str, ...]
    limitations: tuple[str, ...] = ()


def fields(layout: Struct) -> list[tuple[int | None, int | None, str, str]]:
    """(offset, size, name, description) of each field; offset and size are None from the first variable field on."""
    rows: list[tuple[int | None, int | None, str, str]] = []
    at: int | None = 0
    for part in layout.subcons:
        size = _size(part)
        rows.append((at, size, part.name or "", part.docs or ""))
        at = None if at is None or size is None else at + size
    return rows


def _size(part: Construct) -> int | None:
    from construct import SizeofError

    try:
        return int(part.sizeof())
    except (SizeofError, KeyError):  # a size that depends on a field
        return None
