"""Whether anything but a wrapper leads to payloads that move or shrink; if so, the edit is refused with the place and the name."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence

from fatpatch.base.errors import ReferencedError, UnsupportedError
from fatpatch.edit.references import aarch64, data, x86
from fatpatch.edit.references.parts import merged
from fatpatch.edit.references.program import Layout, LinkedProgram, PayloadReference, Ranges
from fatpatch.formats import numbers as n

_CODE = {n.EM_X86_64: x86.instructions, n.EM_AARCH64: aarch64.instructions}
HINT = "give an image that fits in place (a smaller one, or --replace), or edit another module"


def refuse_references(program: LinkedProgram, ranges: Ranges) -> None:
    """EditError when something leads into ``ranges``; UnsupportedError for code of a machine that is not read."""
    if not ranges:
        return
    if program.machine not in _CODE:
        message = "its machine code is neither x86-64 nor aarch64: what refers to its payloads cannot be found"
        raise UnsupportedError(message, locator=program.locator)
    for export in program.exports:
        if export.address in ranges or (export.own and ranges.end_at(export.address)):
            message = f"exports the symbol {export.name!r}, which leads into the payload ({export.address:#x}) and would not follow it"
            raise ReferencedError(message, locator=program.locator, hint=HINT)
    for found in _others(program, ranges):
        message = f"{found.how} at {found.place:#x} leads into the payload ({found.target:#x}), and would go on reading the old one"
        raise ReferencedError(message, locator=program.locator, hint=HINT)


def _others(program: LinkedProgram, ranges: Ranges) -> Iterator[PayloadReference]:
    yield from program.relocated(ranges)
    offsets = data.offsets(program, ranges)
    spans = list(ranges.without(merged((each.start, each.end) for each in offsets)))
    tables = Ranges(spans, [], Layout(frozenset(end for _, end in spans)))
    led_to = []
    for each in _CODE[program.machine](program, ranges.joined(tables) if tables else ranges):
        if each.target in ranges or ranges.doubtful(each.target) or (each.target not in tables and ranges.close_before(each.target)):
            yield each
        else:
            led_to.append(each.target)
    yield from data.pointers(program, ranges)
    yield from _used(program, offsets, tables, led_to)


def _used(program: LinkedProgram, offsets: Sequence[data.Offset], tables: Ranges, led_to: Sequence[int]) -> Iterator[PayloadReference]:
    """Those offsets whose table something leads to, code to ``led_to``; an offset in no such table is a coincidence."""
    if not tables:
        return
    found = [each.target for each in program.relocated(tables)]
    found += [each.target for each in data.pointers(program, tables)]
    targets = sorted([*found, *led_to])
    for each in offsets:
        if bisect.bisect_left(targets, each.start) < bisect.bisect_left(targets, each.end):
            yield each.found
