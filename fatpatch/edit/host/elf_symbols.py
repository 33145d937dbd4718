"""Symbols of an ELF file that name payloads, led to where these are now (reference: gABI, symbol table)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from fatpatch.base.overlay import Write
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import SYMBOL
from fatpatch.binfmt.elf.layout import ElfFile
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.formats import numbers as n

_BLOCK = 0x10000 * SYMBOL.size


class Symbol(NamedTuple):
    """A record of a symbol table; field names follow formats/elf.py."""

    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


def followed(elf: ElfFile, field: str, wanted: Collection[int], follow: Callable[[Symbol], Symbol | None]) -> Iterator[Write]:
    """The writes of those symbols of static symbol tables that ``follow`` changes; it gives None for one that stays.

    It is asked of symbols whose ``field`` is one of ``wanted``: a table has many thousands.
    """
    column = Symbol._fields.index(field)
    for table in elf.sections:
        if table.type != n.SHT_SYMTAB:
            continue
        for start in range(0, table.size - SYMBOL.size + 1, _BLOCK):
            data = elf.source.peek(table.offset + start, min(_BLOCK, table.size - start))
            rows = enumerate(SYMBOL.iter_unpack(data[: len(data) // SYMBOL.size * SYMBOL.size]))
            for index, row in [(index, row) for index, row in rows if row[column] in wanted]:
                new = follow(Symbol(*row))
                if new is not None:
                    yield Write.of(table.offset + start + index * SYMBOL.size, SYMBOL.pack(*new))


def symbols_of_moved(
    elf: ElfFile, moves: Mapping[int, tuple[int, int]], moved: Sequence[NewPayload], section: int | None
) -> Iterator[Write]:
    """The writes after payloads have moved.

    ``moves``: as for ``retarget``. ``section``: the index of the section that holds them now; None when it is the old one.
    """
    places = {moves[new.payload.offset][0]: (moves[new.payload.offset][1], new) for new in moved}

    def follow(symbol: Symbol) -> Symbol | None:
        if not 0 < symbol.section < len(elf.sections):
            return None
        address, new = places[symbol.value]
        size = new.size if symbol.size == new.payload.size else symbol.size
        return symbol._replace(section=symbol.section if section is None else section, value=address, size=size)

    yield from followed(elf, "value", places, follow)
