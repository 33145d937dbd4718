"""Symbols of a PE file's COFF table that name payloads, led to where these are now (reference: PE/COFF specification, symbol table)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

from fatpatch.base.overlay import Write
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.edit.payload.new_payload import NewPayload

_SYMBOL = struct.Struct("<8sIhHBB")
_MAX_SYMBOLS = 1 << 22

Follow = Callable[[int, int], tuple[int, int] | None]
"""From (section number, offset in it) to the new pair; None when the symbol stays."""


def symbol_table(pe: PeFile) -> tuple[int, int]:
    """File offset and number of records; (0, 0) when there is none."""
    return (pe.symbols, min(pe.symbol_count, _MAX_SYMBOLS)) if pe.symbols else (0, 0)


def followed(pe: PeFile, follow: Follow) -> Iterator[Write]:
    """The writes of the symbols that ``follow`` gives another place."""
    symbols, count = symbol_table(pe)
    skip = 0
    for at in range(symbols, symbols + count * _SYMBOL.size, _SYMBOL.size):
        if skip:
            skip -= 1
            continue
        name, value, number, kind, storage, skip = _SYMBOL.unpack(pe.source.read(at, _SYMBOL.size))
        if value and number > 0 and (new := follow(number, value)) is not None:
            yield Write.of(at, _SYMBOL.pack(name, new[1], new[0], kind, storage, skip))


def symbols_followed(pe: PeFile, addresses: Mapping[int, int], moved: Sequence[NewPayload], number: int) -> Iterator[Write]:
    """The writes after payloads have moved into section ``number``; ``addresses``: by old file offset, image base included."""
    home = pe.sections[number - 1].address if number <= len(pe.sections) else 0
    start = home or min(addresses.values()) - pe.base
    places = {}
    for new in moved:
        index = next(index for index, row in enumerate(pe.sections) if row.offset <= new.payload.offset < row.offset + row.raw_size)
        at = new.payload.offset - pe.sections[index].offset
        places[index + 1, at] = number, addresses[new.payload.offset] - pe.base - start
    yield from followed(pe, lambda section, value: places.get((section, value)))
