"""What a file holds more than once: tables for people, and the document of schema fatpatch.duplicates/1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fatpatch import __version__
from fatpatch.api.duplicates import Copies, Duplicates, SameKernel
from fatpatch.base.words import columns, plural, safe, size

SCHEMA = "fatpatch.duplicates/1"
_SHOWN = 10
_LONGEST = 70


def text(shown: str, found: Duplicates, show: Callable[[str], str], *, verbose: bool) -> Iterator[str]:
    """The sums first, then the most costly copies; all of them with ``verbose``."""
    if not found.images:
        yield f"{safe(shown)}: no GPU code"
        return
    spare, repeated = sum(each.spare for each in found.copies), sum(each.spare for each in found.same)
    copies = sum(len(each.locators) - 1 for each in found.copies)
    yield f"{safe(shown)}: {copies} of {plural(found.images, 'image')} are copies of others: {size(spare)} of {size(found.stored)} stored"
    extra = sum(len(each.locators) - 1 for each in found.same)
    if found.kernels:
        cost = f"{size(repeated)} of {size(found.code)} of code, unpacked"
        yield f"  {extra} of {plural(found.kernels, 'kernel')} in SASS are copies: {cost}"
    if found.same:
        yield "  a kernel in several modules comes of a template or header that several source files instantiate"
    count = len(found.copies) + len(found.same) if verbose else _SHOWN
    if found.copies:
        yield ""
        yield from _table(("images", "spare", "target", "first"), map(_image_cells, found.copies[:count]))
        yield from _more(len(found.copies) - count, "more image")
    if found.same:
        yield ""
        yield from _table(("modules", "spare", "target", "kernel"), (_kernel_cells(each, show) for each in found.same[:count]))
        yield from _more(len(found.same) - count, "more kernel")


def _table(header: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield from (f"  {line}" for line in columns(header, rows, left=frozenset({2, 3})))


def _more(count: int, word: str) -> Iterator[str]:
    if count > 0:
        yield f"  and {plural(count, word)}; -v lists all"


def _image_cells(each: Copies) -> Sequence[str]:
    return str(len(each.locators)), size(each.spare), safe(each.target), safe(each.locators[0])


def _kernel_cells(each: SameKernel, show: Callable[[str], str]) -> Sequence[str]:
    return str(len(each.locators)), size(each.spare), safe(each.target), safe(show(each.name), _LONGEST)


def file_json(shown: str, found: Duplicates) -> dict[str, Any]:
    """One file of the document."""
    return {
        "path": shown,
        "images": found.images,
        "stored": found.stored,
        "copies": [each._asdict() | {"locators": list(each.locators)} for each in found.copies],
        "kernels": found.kernels,
        "code": found.code,
        "same_kernels": [each._asdict() | {"locators": list(each.locators)} for each in found.same],
        "diagnostics": [item._asdict() for item in found.diagnostics],
    }


def document(files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document of schema fatpatch.duplicates/1."""
    return {"schema": SCHEMA, "tool_version": __version__, "files": list(files)}
