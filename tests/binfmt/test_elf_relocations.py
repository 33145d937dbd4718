"""Relocations of an ELF file, read a few rows at a time, beside those that pyelftools reads at once."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from fatpatch.base.source import Source
from fatpatch.binfmt.elf import layout

LIBRARY = Path(importlib.import_module("zstandard.backend_c").__file__ or "")
RELATIVE = {"EM_X86_64": 8, "EM_AARCH64": 1027}
pytestmark = pytest.mark.skipif(
    not LIBRARY.is_file() or LIBRARY.read_bytes()[:4] != b"\x7fELF", reason="needs an ELF library of many relocations"
)


@pytest.mark.parametrize("rows", [1, 7, 1 << 15])
def test_rows_read_in_pieces_are_all_rows(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_PIECE", rows)
    with LIBRARY.open("rb") as stream:
        file = ELFFile(stream)
        kind = RELATIVE[file["e_machine"]]
        table = file.get_section_by_name(".rela.dyn")
        assert isinstance(table, RelocationSection)
        every = list(table.iter_relocations())
        start, size = table["sh_offset"], table["sh_entsize"]
        wanted = [
            (row["r_offset"], row["r_addend"], start + index * size + 16)
            for index, row in enumerate(every)
            if row["r_info_type"] == kind and not row["r_info_sym"]
        ]
    source = Source.open(str(LIBRARY))
    elf = layout.ElfFile(source, LIBRARY.name)
    assert len(wanted) > 50
    assert list(elf.relative_relocations()) == wanted
    assert {(place, target) for place, target, _ in wanted} <= set(elf.relocations())
    assert elf.packed_relocations() == set()
    source.close()
