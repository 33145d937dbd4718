"""The wrappers of an ELF file led to payloads at new addresses, if nothing else leads to the old ones (reference: graft, section B)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from fatpatch.base.errors import EditError
from fatpatch.base.overlay import Write
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.edit.host.host import refuse_foreign
from fatpatch.edit.references.elf import layout_of, program_of
from fatpatch.edit.references.program import PayloadReference, Ranges
from fatpatch.edit.references.search import HINT, refuse_references
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.wrapper import read_wrappers
from fatpatch.model.tree import Node

_WORD = struct.Struct("<Q")


def retarget(host: Node, elf: ElfFile, moves: dict[int, tuple[int, int]], *, shrunk: Iterable[int] = ()) -> list[Write]:
    """The writes that make every wrapper of a moved payload point to its new address.

    ``moves``: old file offset to (old address, new address); ``shrunk``: offsets of those that stay where they are and become shorter.
    EditError when something else than a wrapper refers to one, or into one, or when a wrapper's pointer is not relocated as one must be
    in this kind of file.
    """
    pointers = read_wrappers(host.content, host.layout)
    sizes = {payload.offset: payload.size for payload in host.payloads}
    wrappers = {elf.address_of(pointer.wrapper.offset + 8) for pointer in pointers}
    by_place = {place: (addend, at) for place, addend, at in elf.relative_relocations() if place in wrappers}
    packed = elf.packed_relocations()
    writes, reached = list[Write](), set[int]()
    own = frozenset(elf.address_of(pointer.wrapper.offset + 8) for pointer in pointers if pointer.target in sizes)
    for pointer in pointers:
        if pointer.target not in moves:
            continue
        old, new = moves[pointer.target]
        at = pointer.wrapper.offset + 8
        place = elf.address_of(at)
        reached.add(pointer.target)
        (value,) = _WORD.unpack(elf.source.read(at, 8))
        addend, addend_at = by_place.get(place, (None, 0))
        if elf.type == n.ET_DYN and addend is None and place not in packed:
            raise EditError("the wrapper's pointer has no RELATIVE relocation", locator=elf.locator, offset=at, field="fatbin pointer")
        if addend is not None:
            if addend != old:
                message = f"the wrapper's relocation leads to {addend:#x}, expected {old:#x}"
                raise EditError(message, locator=elf.locator, offset=addend_at, field="r_addend")
            writes.append(Write.of(addend_at, _WORD.pack(new)))
        if value == old:
            writes.append(Write.of(at, _WORD.pack(new)))
        elif value or addend is None:  # lld leaves zero and keeps the value in the relocation alone
            raise EditError(f"the wrapper holds {value:#x}, expected {old:#x}", locator=elf.locator, offset=at, field="fatbin pointer")
    for offset in moves.keys() - reached:
        raise EditError("no wrapper points to it, so nothing would find it elsewhere", locator=elf.locator, offset=offset, hint=HINT)
    shrinking = [(elf.address_of(offset), elf.address_of(offset) + sizes[offset]) for offset in shrunk]
    ranges = Ranges([(old, old + sizes[offset]) for offset, (old, _) in moves.items()], shrinking, layout_of(host, elf))
    if ranges:
        refuse_foreign(host, moves)
        program = program_of(host, elf, pointers, own)
        packed -= own

        def relocated(ranges: Ranges) -> Iterator[PayloadReference]:
            yield from program.relocated(ranges)
            yield from (each for each in _packed(elf, packed) if each.target in ranges)

        refuse_references(program._replace(relocated=relocated), ranges)
    return writes


def _packed(elf: ElfFile, places: Iterable[int]) -> Iterator[PayloadReference]:
    """The pointers that RELR relocates: their values are in place."""
    for place in places:
        at = elf.offset_of(place)
        yield PayloadReference(place, int.from_bytes(elf.source.peek(at, 8), "little"), "the relocated pointer")
