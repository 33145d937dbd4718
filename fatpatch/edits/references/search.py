"""Whether anything but a wrapper leads to payloads that move or shrink; if so, the edit is refused with the place and the name."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.edits.references import aarch64, data, x86
from fatpatch.edits.references.program import Program, Ranges, Reference
from fatpatch.errors import EditError, UnsupportedError
from fatpatch.formats import numbers as n

_CODE = {n.EM_X86_64: x86.instructions, n.EM_AARCH64: aarch64.instructions}
_TABLE = 256
"""Bytes before an offset in which its table begins, where code leads to."""
HINT = "give an image that fits in place (a smaller one, or --replace), or edit another module"


def refuse_references(program: Program, ranges: Ranges) -> None:
    """EditError when something leads into ``ranges``; UnsupportedError for code of a machine that is not read."""
    if not ranges:
        return
    if program.machine not in _CODE:
        message = "its machine code is neither x86-64 nor aarch64: what refers to its payloads cannot be found"
        raise UnsupportedError(message, locator=program.locator)
    for export in program.exports:
        if export.address in ranges or (export.own and ranges.end_at(export.address)):
            message = f"exports the symbol {export.name!r}, which leads into the payload ({export.address:#x}) and would not follow it"
            raise EditError(message, locator=program.locator, hint=HINT)
    for found in _others(program, ranges):
        message = f"{found.how} at {found.place:#x} leads into the payload ({found.target:#x}), and would go on reading the old one"
        raise EditError(message, locator=program.locator, hint=HINT)


def _others(program: Program, ranges: Ranges) -> Iterator[Reference]:
    yield from (each for each in program.relocated if each.target in ranges)
    yield from _CODE[program.machine](program, ranges)

    def used(place: int) -> bool:
        table = Ranges([(place - _TABLE, place + 1)], [], frozenset())
        return any(each.target in table for each in program.relocated) or any(True for _ in _CODE[program.machine](program, table))

    yield from data.words(program, ranges, used)
