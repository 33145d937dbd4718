"""The wrappers of a PE file led to payloads at new addresses, if nothing else leads to the old ones (reference: graft, section E)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.overlay import Write
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.edit.host.host import refuse_foreign
from fatpatch.edit.references.pe import layout_of, program_of
from fatpatch.edit.references.program import Ranges
from fatpatch.edit.references.search import HINT, refuse_references
from fatpatch.gpucode.fatbin.wrapper import read_wrappers
from fatpatch.model.tree import Node


def wrappers_led(host: Node, pe: PeFile, moves: Mapping[int, int], *, shrunk: Sequence[int] = ()) -> list[Write]:
    """The wrappers of moved payloads led to their new addresses. Their base relocations stay: they name the place, not the value.

    ``shrunk``: offsets of those that stay where they are and become shorter. EditError when something else refers to one, or into one.
    """
    pointers = read_wrappers(host.content, host.layout)
    sizes = {payload.offset: payload.size for payload in host.payloads}
    writes, reached = list[Write](), set[int]()
    for pointer in pointers:
        if pointer.target is not None and pointer.target in moves:
            reached.add(pointer.target)
            writes.append(Write.of(pointer.wrapper.offset + 8, moves[pointer.target].to_bytes(8, "little")))
    for offset in moves.keys() - reached:
        raise EditError("no wrapper points to it, so nothing would find it elsewhere", locator=pe.locator, offset=offset, hint=HINT)

    def addresses(offset: int) -> tuple[int, int]:
        start = pe.base + pe.address_of(offset)
        return start, start + sizes[offset]

    ranges = Ranges([addresses(offset) for offset in moves], [addresses(offset) for offset in shrunk], layout_of(host, pe))
    if ranges:
        refuse_foreign(host, moves)
        own = frozenset(pointer.wrapper.offset + 8 for pointer in pointers if pointer.target in sizes)
        refuse_references(program_of(host, pe, pointers, own), ranges)
    return writes
