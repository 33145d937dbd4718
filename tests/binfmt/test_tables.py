"""The tables of PE files and ELF objects, as LIEF and pyelftools read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import lief
import pytest
from conftest import ROOT
from elftools.elf.elffile import ELFFile

from fatpatch.base.source import Source
from fatpatch.binfmt.identify import identify
from fatpatch.binfmt.pe.tables import IMPORTS, RELOCATIONS, SECURITY, PeTables
from fatpatch.gpucode.fatbin.wrapper import read_wrappers
from fatpatch.model.diagnostics import Diagnostics

WRAPPERS = """
    .section .nv_fatbin, "a"
    .zero 64
first:
    .long 0xba55ed50, 0x00100001, 8, 0, 0, 0
    .section .nvFatBinSegment, "aw"
    .align 8
    .long 0x466243b1, 1
    .quad first, 0
    .long 0x466243b1, 1
    .quad .nv_fatbin + 16, 0
"""


@pytest.mark.parametrize("name", ["donor.dll"])
def test_pe_headers_as_lief_reads_them(name: str) -> None:
    path = ROOT / "samples" / name
    theirs = lief.PE.parse(str(path))
    assert theirs is not None
    ours = PeTables(Source.of(path.read_bytes()))
    assert (ours.linked, ours.wide, ours.base) == (True, True, theirs.optional_header.imagebase)
    sections = [(each.virtual_size, each.virtual_address, each.sizeof_raw_data, each.pointerto_raw_data) for each in theirs.sections]
    assert [(each.virtual_size, each.address, each.raw_size, each.offset) for each in ours.sections] == sections
    for index in (IMPORTS, SECURITY, RELOCATIONS):
        directory = theirs.data_directory(lief.PE.DataDirectory.TYPES(index))
        assert directory is not None
        assert ours.directory(index) == (directory.rva, directory.size)


def test_a_pe_header_that_is_cut_has_no_sections_and_no_directories() -> None:
    data = (ROOT / "samples" / "donor.dll").read_bytes()
    start = PeTables(Source.of(data)).optional
    for end in range(start, start + 300, 7):
        cut = PeTables(Source.of(data[:end]))
        assert len(cut.sections) < cut.count
        assert all(isinstance(number, int) for index in range(20) for number in cut.directory(index))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_wrappers_of_an_object_file_lead_where_its_relocations_say(tmp_path: Path) -> None:
    source, made = tmp_path / "wrappers.s", tmp_path / "wrappers.o"
    source.write_text(WRAPPERS)
    subprocess.run(["gcc", "-c", source, "-o", made], check=True, timeout=60)
    with made.open("rb") as file:
        elf = ELFFile(file)
        table, symbols = elf.get_section_by_name(".rela.nvFatBinSegment"), elf.get_section_by_name(".symtab")
        wanted = []
        for row in table.iter_relocations():
            symbol = symbols.get_symbol(row["r_info_sym"])
            wanted.append(elf.get_section(symbol["st_shndx"])["sh_offset"] + symbol["st_value"] + row["r_addend"])
    content = Source.of(made.read_bytes())
    pointers = read_wrappers(content, identify(content, "wrappers.o", Diagnostics()))
    assert [pointer.target for pointer in pointers] == wanted
