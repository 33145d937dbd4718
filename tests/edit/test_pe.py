"""Grafts into DLLs, looked at by a strict loader of its own, LIEF and objdump. What Wine makes of them: test_wine."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import lief
import pytest
from conftest import SAMPLES, Run
from edit.elf_builder import Stored, cubin, demo_member, donated, fatpatch, stored_entries
from edit.pe_variants import checksum, signed, without_header_room
from edit.wine import COMPILER
from elftools.elf.elffile import ELFFile

_SECTION = struct.Struct("<8sIIIIIIHHI")
_WRAPPER_HEAD = struct.pack("<II", 0x466243B1, 1)
_MOVED = 0x7FF612340000
NEW, GROWN, IN_PLACE = "new section .nv_fatb", "last section grown (no room for a section header)", "in place"
FLAGS = 0x11  # as its neighbours have them
DONOR = ("--from", SAMPLES / "donor.dll", "--target", "sm_61")
DEMO = ("--from", "demo.dll", "--target")


class Graft(NamedTuple):
    """A DLL to make: the options of each graft into ``base()``, their tactics, and the targets that are there in the end."""

    name: str
    base: Callable[[], bytes]
    steps: tuple[tuple[object, ...], ...]
    tactics: tuple[str, ...]
    archs: tuple[int, ...]


class Section(NamedTuple):
    """A section header."""

    name: bytes
    virtual_size: int
    address: int
    raw_size: int
    offset: int
    relocations: int
    line_numbers: int
    relocation_count: int
    line_number_count: int
    flags: int


class Pe:
    """A PE32+ file as the Windows loader takes it, which is stricter than Wine."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        (at,) = struct.unpack_from("<I", data, 0x3C)
        count, optional_size = struct.unpack_from("<2xH12xH", data, at + 4)
        self.optional = at + 24
        self.table = self.optional + optional_size
        assert struct.unpack_from("<H", data, self.optional) == (0x20B,)
        (self.base,) = struct.unpack_from("<Q", data, self.optional + 24)
        self.alignment, self.file_alignment = struct.unpack_from("<II", data, self.optional + 32)
        self.image_size, self.header_size, self.checksum = struct.unpack_from("<III", data, self.optional + 56)
        self.initialised = struct.unpack_from("<I", data, self.optional + 8)[0]
        self.sections = [Section(*_SECTION.unpack_from(data, self.table + index * _SECTION.size)) for index in range(count)]
        assert self.table + count * _SECTION.size <= self.header_size <= min(row.offset for row in self.sections if row.offset)

    def directory(self, index: int) -> tuple[int, int]:
        address, size = struct.unpack_from("<II", self.data, self.optional + 112 + 8 * index)
        return address, size

    def mapped(self, base: int) -> bytearray:
        """The image in memory at ``base``, relocated."""
        image = bytearray(self.image_size)
        image[: self.header_size] = self.data[: self.header_size]
        end = -(-self.header_size // self.alignment) * self.alignment
        for section in self.sections:
            assert section.address == end, "Windows wants sections without gaps (STATUS_INVALID_IMAGE_FORMAT)"
            end += -(-(section.virtual_size or section.raw_size) // self.alignment) * self.alignment
            assert section.offset + section.raw_size <= len(self.data)
            assert section.offset % self.file_alignment == section.raw_size % self.file_alignment == 0
            size = min(section.raw_size, end - section.address)
            image[section.address : section.address + size] = self.data[section.offset : section.offset + size]
        assert end == len(image) == self.image_size
        for place in self.relocations(image):
            (value,) = struct.unpack_from("<Q", image, place)
            struct.pack_into("<Q", image, place, value - self.base + base)
        return image

    def relocations(self, image: bytearray) -> list[int]:
        """The addresses of the DIR64 base relocations."""
        at, size = self.directory(5)
        end, found = at + size, []
        while at < end:
            page, length = struct.unpack_from("<II", image, at)
            rows = struct.unpack_from(f"<{(length - 8) // 2}H", image, at + 8)
            assert {row >> 12 for row in rows} <= {0, 10}
            found += [page + (row & 0xFFF) for row in rows if row >> 12]
            at += length
        return found

    def fatbins(self, base: int = _MOVED) -> list[list[Stored]]:
        """What the wrappers lead to in memory at ``base``."""
        image = bytes(self.mapped(base))
        found = []
        for section in self.sections:
            if section.name.rstrip(b"\0") != b".nvFatBi":
                continue
            at = section.address - 8
            while (at := image.find(_WRAPPER_HEAD, at + 8, section.address + section.virtual_size)) >= 0:
                (pointer,) = struct.unpack_from("<Q", image, at + 8)
                found.append(stored_entries(image, pointer - base))
        return found


def demo_dll() -> bytes:
    return demo_member(SAMPLES, "ggml-cuda.dll")


def donor_dll() -> bytes:
    return (SAMPLES / "donor.dll").read_bytes()


def other_donor() -> bytes:
    """The donor with other code: one constant of one instruction, so that its sm_61 image can be replaced."""
    data = bytearray(donor_dll())
    start = data.index(cubin(SAMPLES, 61))
    elf = ELFFile(BytesIO(cubin(SAMPLES, 61)))
    code = next(section["sh_offset"] for section in elf.iter_sections() if section.name.startswith(".text."))
    data[start + code + 40] ^= 1
    return summed(data)


def summed(data: bytearray) -> bytes:
    at = struct.unpack_from("<I", data, 0x3C)[0] + 24 + 64
    struct.pack_into("<I", data, at, checksum(data))
    return bytes(data)


def with_overlay(data: bytes) -> bytes:
    """Something behind the last section, as installers and debuggers put there."""
    return summed(bytearray(data) + b"overlay!" * 200)


def without_checksum(data: bytes) -> bytes:
    """As MSVC links without /RELEASE."""
    copy = bytearray(data)
    at = struct.unpack_from("<I", data, 0x3C)[0] + 24 + 64
    copy[at : at + 4] = bytes(4)
    return bytes(copy)


def last_section(data: bytes, **fields: int) -> bytearray:
    """A copy with another header for the last section."""
    pe, copy = Pe(data), bytearray(data)
    _SECTION.pack_into(copy, pe.table + (len(pe.sections) - 1) * _SECTION.size, *pe.sections[-1]._replace(**fields))
    return copy


def with_unmapped_bytes(data: bytes) -> bytes:
    """A copy whose last section has more bytes in the file than in memory: they are not mapped, SizeOfImage stays."""
    last = Pe(data).sections[-1]
    assert last.offset + last.raw_size == len(data)
    return summed(last_section(data, raw_size=last.raw_size + 0x2000) + bytes(0x2000))


def with_blank_tail(data: bytes) -> bytes:
    """A copy whose last section ends in a page of zeros that the file does not hold (.bss), with an overlay behind it in the file."""
    last = Pe(data).sections[-1]
    copy = last_section(data, virtual_size=0x1800, flags=last.flags & ~0x02000000)
    struct.pack_into("<I", copy, Pe(data).optional + 56, last.address + 0x2000)
    return summed(copy + b"overlay!" * 128)


ALL = (61, 60, 70, 75)
GRAFTS = (
    Graft("new section", demo_dll, (DONOR,), (NEW,), ALL),
    Graft("signed", lambda: signed(demo_dll()), ((*DONOR, "--drop-signature"),), (NEW,), ALL),
    Graft("without header room", lambda: without_header_room(demo_dll()), (DONOR,), (GROWN,), ALL),
    Graft("overlay", lambda: with_overlay(demo_dll()), (DONOR,), (NEW,), ALL),
    Graft("overlay, without header room", lambda: with_overlay(without_header_room(demo_dll())), (DONOR,), (GROWN,), ALL),
    Graft("signed overlay", lambda: signed(with_overlay(demo_dll())), ((*DONOR, "--drop-signature"),), (NEW,), ALL),
    Graft("signed, then more", lambda: signed(demo_dll()) + bytes(64), ((*DONOR, "--drop-signature"),), (NEW,), ALL),
    Graft("no checksum", lambda: without_checksum(demo_dll()), (DONOR,), (NEW,), ALL),
    Graft("packed", demo_dll, ((*DONOR, "--compress", "zstd"),), (NEW,), ALL),
    Graft("twice", donor_dll, ((*DEMO, "sm_60"), (*DEMO, "sm_70", "--target", "sm_75")), (NEW, NEW), (70, 75, 60, 61)),
    Graft(
        "until the headers are full", donor_dll, ((*DEMO, "sm_60"), (*DEMO, "sm_70"), (*DEMO, "sm_75")), (NEW, NEW, GROWN), (75, 70, 60, 61)
    ),
    Graft(
        "last section twice", lambda: without_header_room(donor_dll()), ((*DEMO, "sm_60"), (*DEMO, "sm_70")), (GROWN, GROWN), (70, 60, 61)
    ),
    Graft("replaced", other_donor, ((*DONOR, "--replace"),), (IN_PLACE,), (61,)),
    Graft("replaced, packed", other_donor, ((*DONOR, "--replace", "--compress", "lz4"),), (IN_PLACE,), (61,)),
    Graft("replaced, signed", lambda: signed(other_donor()), ((*DONOR, "--replace", "--drop-signature"),), (IN_PLACE,), (61,)),
    Graft("unmapped bytes", lambda: with_unmapped_bytes(demo_dll()), (DONOR,), (NEW,), ALL),
    Graft("blank tail", lambda: with_blank_tail(demo_dll()), (DONOR,), (NEW,), ALL),
)


class Made(NamedTuple):
    """A DLL before and after its grafts, and what each command said."""

    graft: Graft
    before: Path
    after: Path
    told: tuple[str, ...]


def options(step: tuple[object, ...], folder: Path) -> list[object]:
    """The options of a step, with the demo's DLL as a file in ``folder``."""
    (folder / "demo.dll").write_bytes(demo_dll())
    return [folder / "demo.dll" if option == "demo.dll" else option for option in step]


def make(graft: Graft, folder: Path) -> Made:
    """Write the base, and graft step by step into a copy."""
    before, after = folder / "before.dll", folder / "after.dll"
    before.write_bytes(graft.base())
    shutil.copy(before, after)
    told = []
    for step in graft.steps:
        answer = fatpatch("graft", after, *options(step, folder), "--in-place")
        assert (answer.code, answer.err) == (0, ""), answer
        told.append(answer.out)
    return Made(graft, before, after, tuple(told))


def made_by_name(name: str, folder: Path) -> Made:
    folder.mkdir(exist_ok=True)
    return make(next(graft for graft in GRAFTS if graft.name == name), folder)


@pytest.fixture(scope="module", params=GRAFTS, ids=lambda graft: graft.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(request.param, tmp_path_factory.mktemp("pe"))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def expected(graft: Graft) -> list[Stored]:
    """The entries that should be there, raw."""
    old = {item.arch: item for item in Pe(graft.base()).fatbins()[0]}
    return [
        old[arch] if arch in old and IN_PLACE not in graft.tactics else donated(cubin(SAMPLES, arch), arch, FLAGS) for arch in graft.archs
    ]


def test_a_strict_loader_finds_the_images(made: Made) -> None:
    before, after = Pe(made.before.read_bytes()), Pe(made.after.read_bytes())
    wanted = expected(made.graft)
    (found,) = after.fatbins()
    assert [found] == after.fatbins(after.base)
    if "packed" in made.graft.name:
        assert [item.arch for item in found] == list(made.graft.archs)
        assert found[0].flags in (FLAGS | 0x8000, FLAGS | 0x2000)
        assert len(found[0].data) < len(wanted[0].data)
        assert found[1:] == wanted[1:]
    else:
        assert found == wanted
    for tactic, told in zip(made.graft.tactics, made.told, strict=True):
        assert re.findall(r"^  (\S.*)$", told, re.MULTILINE)[0] == tactic
        assert (passed := re.search(r"(\d+) of (\d+) checks passed", told))
        assert passed[1] == passed[2]
    images = [pe.mapped(pe.base) for pe in (before, after)]
    for row in before.sections:
        if row.name.rstrip(b"\0") not in (b".nv_fatb", b".nvFatBi"):
            size = row.virtual_size
            assert images[0][row.address : row.address + size] == images[1][row.address : row.address + size], row.name


def test_headers(made: Made) -> None:
    before, after = Pe(made.before.read_bytes()), Pe(made.after.read_bytes())
    kept = after.sections[: len(before.sections)]
    new = after.sections[len(before.sections) :]
    assert [row[:1] + row[2:3] + row[4:9] for row in kept] == [row[:1] + row[2:3] + row[4:9] for row in before.sections]
    assert kept[:-1] == before.sections[:-1]
    assert len(new) == made.graft.tactics.count(NEW)
    assert {(row.name, row.flags) for row in new} <= {(b".nv_fatb", 0x40000040)}
    last = after.sections[-1]
    if GROWN in made.graft.tactics:
        assert last.offset + last.raw_size == len(after.data)
        assert not last.flags & 0x02000000, "a discardable section may be gone when the fatbin is read"
        assert new or last.virtual_size > before.sections[-1].virtual_size
    else:
        assert kept == before.sections
    grown = sum(row.raw_size for row in after.sections) - sum(row.raw_size for row in before.sections)
    assert after.initialised - before.initialised == grown
    assert (grown == 0) == (IN_PLACE in made.graft.tactics) == (after.image_size == before.image_size)
    assert [before.directory(index) for index in range(16) if index != 4] == [after.directory(index) for index in range(16) if index != 4]
    assert after.directory(4) == (0, 0)
    relocations = [pe.relocations(pe.mapped(pe.base)) for pe in (before, after)]
    assert relocations[0] == relocations[1] != []


def test_checksum(made: Made) -> None:
    after = Pe(made.after.read_bytes())
    if made.graft.name == "no checksum":
        assert after.checksum == 0
        return
    binary = lief.PE.parse(str(made.after))
    assert binary is not None
    assert after.checksum == checksum(after.data) == binary.compute_checksum()


def test_lief_reads_the_same(made: Made) -> None:
    old, new = lief.PE.parse(str(made.before)), lief.PE.parse(str(made.after))
    assert old is not None
    assert new is not None
    assert not new.has_signatures
    places = [[(entry.address, entry.type) for block in binary.relocations for entry in block.entries] for binary in (old, new)]
    assert places[0] == places[1]
    assert [(symbol.name, symbol.address) for symbol in old.exported_functions] == [
        (symbol.name, symbol.address) for symbol in new.exported_functions
    ]
    assert [item.name for item in old.imports] == [item.name for item in new.imports]
    assert new.virtual_size == new.optional_header.sizeof_image == Pe(made.after.read_bytes()).image_size
    wrapper = next(section for section in new.sections if section.name == ".nvFatBi")
    (address,) = struct.unpack_from("<Q", bytes(wrapper.content), 8)
    home = new.section_from_rva(address - new.imagebase)
    assert home is not None
    content = bytes(home.content)
    found = stored_entries(content, address - new.imagebase - home.virtual_address)
    assert [item.arch for item in found] == list(made.graft.archs)


def test_objdump_has_no_complaint(made: Made) -> None:
    program = next((name for name in ("x86_64-w64-mingw32-objdump", "objdump") if shutil.which(name)), None)
    if program is None:
        pytest.skip("needs objdump")
    done = subprocess.run([program, "-x", made.after], capture_output=True, text=True, timeout=60, check=False)
    if "format not recognized" in done.stderr:
        pytest.skip("this objdump does not know PE")
    assert (done.returncode, done.stderr) == (0, "")
    rows = re.findall(r"^ *\d+ (\S+) +([0-9a-f]{8}) +([0-9a-f]{16})", done.stdout, re.MULTILINE)
    after = Pe(made.after.read_bytes())
    assert [(name, int(address, 16) - after.base) for name, _, address in rows] == [
        (row.name.rstrip(b"\0").decode(), row.address) for row in after.sections
    ]


def test_the_overlay_stays(made: Made) -> None:
    before, after = made.before.read_bytes(), made.after.read_bytes()
    assert after.count(b"overlay!") == before.count(b"overlay!")
    if b"overlay!" in before:
        assert after.index(b"overlay!") == before.index(b"overlay!")


def test_again_and_back(made: Made, tmp_path: Path) -> None:
    copy = tmp_path / "copy.dll"
    for suffix in ("", ".fatpatch-undo"):
        shutil.copy(f"{made.after}{suffix}", f"{copy}{suffix}")
    again = fatpatch("graft", copy, *options(made.graft.steps[-1], tmp_path), "--in-place")
    assert (again.code, sha256(copy)) == (0, sha256(made.after))
    assert "is there already" in again.out
    assert "nothing was written" in again.out
    for _ in made.graft.steps[1:]:
        assert fatpatch("undo", copy, "--last").code == 0
        assert "copy.dll.fatpatch-undo" in [path.name for path in tmp_path.iterdir()]
    back = fatpatch("undo", copy)
    assert (back.code, back.err) == (0, "")
    assert sha256(copy) == sha256(made.before)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.dll", "demo.dll"]


def test_the_command_as_a_user_runs_it(run: Run, tmp_path: Path) -> None:
    """The library out of the llamafile by extract, the donor DLL, and the way back."""
    taken = run("extract", "demo.llamafile", "--kind", "member", "--select", "*ggml-cuda.dll", "-d", tmp_path)
    found = list(tmp_path.rglob("*.dll"))
    assert taken.returncode == 0, taken
    assert [path.read_bytes() for path in found] == [demo_dll()]
    done = run("graft", found[0], *DONOR, "--in-place")
    assert (done.returncode, done.stderr) == (0, "")
    assert [item.arch for item in Pe(found[0].read_bytes()).fatbins()[0]] == [61, 60, 70, 75]
    assert run("undo", found[0]).returncode == 0
    assert found[0].read_bytes() == demo_dll()


def test_the_same_image_for_two_systems_is_one_donor(tmp_path: Path) -> None:
    """A llamafile brings each image in a DLL and in a shared object."""
    path, result = tmp_path / "host.dll", tmp_path / "out.dll"
    path.write_bytes(donor_dll())
    answer = fatpatch("graft", path, "--from", SAMPLES / "demo.llamafile", "--target", "sm_60", "-o", result)
    assert answer.code == 0, answer.err
    assert [item.arch for item in Pe(result.read_bytes()).fatbins()[0]] == [60, 61]


# The signature


@pytest.mark.parametrize("base", [demo_dll, other_donor], ids=["new section", "in place"])
def test_a_signed_dll_is_refused_without_leave(base: Callable[[], bytes], tmp_path: Path) -> None:
    path = tmp_path / "signed.dll"
    path.write_bytes(signed(base()))
    before = sha256(path)
    for target in (("-o", tmp_path / "out.dll"), ("--in-place",), ("--dry-run",)):
        answer = fatpatch("graft", path, *DONOR, "--replace", *target)
        assert (answer.code, answer.out) == (6, "")
        assert "carries an Authenticode signature, which any change makes invalid" in answer.err
        assert "--drop-signature" in answer.err
    assert sha256(path) == before
    assert [item.name for item in tmp_path.iterdir()] == ["signed.dll"]


def test_a_dropped_signature_is_told_and_gone(tmp_path: Path) -> None:
    bare = made_by_name("new section", tmp_path / "bare")
    assert "SIGNATURE" not in bare.told[0]
    data = signed(demo_dll())
    offset, size = Pe(data).directory(4)
    certificate = data[offset + 8 : offset + size]
    assert len(certificate) > 500
    for name in ("signed", "signed overlay", "replaced, signed"):
        made = made_by_name(name, tmp_path / name)
        assert "note: SIGNATURE REMOVED: the file is no longer signed" in made.told[0]
        assert certificate in made.before.read_bytes()
        assert certificate not in made.after.read_bytes()
    assert (tmp_path / "signed/after.dll").read_bytes() == bare.after.read_bytes(), "as if it had never been signed"


# Refusals


def test_a_32_bit_dll_is_refused(tmp_path: Path) -> None:
    data = bytearray(demo_dll())
    struct.pack_into("<H", data, Pe(demo_dll()).optional, 0x10B)
    struct.pack_into("<I", data, Pe(demo_dll()).optional + 28, Pe(demo_dll()).base & 0xFFFFFFFF)
    path = tmp_path / "old.dll"
    path.write_bytes(data)
    answer = fatpatch("graft", path, *DONOR, "-o", tmp_path / "out.dll")
    assert answer.code == 5, answer
    assert "64-bit PE" in answer.err
    assert not (tmp_path / "out.dll").exists()


def test_a_last_section_that_goes_on_over_an_overlay_cannot_grow(tmp_path: Path) -> None:
    """What is zeros in memory would be the overlay's bytes."""
    path = tmp_path / "full.dll"
    path.write_bytes(with_blank_tail(without_header_room(demo_dll())))
    before = sha256(path)
    answer = fatpatch("graft", path, *DONOR, "--in-place")
    assert answer.code == 6, answer
    assert "no room for a section header" in answer.err
    assert (sha256(path), [item.name for item in tmp_path.iterdir()]) == (before, ["full.dll"])


SOURCE = """
__asm__(".section .nv_fatb,\\"dr\\"\\n.balign 16\\nfatbin_data:\\n.incbin \\"%s\\"\\n.text\\n");
extern const char fatbin_data[];
struct wrapper { int magic, version; const void *data; void *extra; };
__attribute__((section(".nvFatBi"), used, aligned(8))) struct wrapper fatbin_wrapper = {0x466243b1, 1, fatbin_data, 0};
__declspec(dllexport) const char *more = %s;
__declspec(dllexport) const void *ggml_cuda_link(void) { return &fatbin_wrapper; }
"""


@pytest.mark.parametrize(("more", "code"), [("fatbin_data + 16", 6), ("(const char *)&fatbin_wrapper", 0)])
def test_another_pointer_into_the_fatbin_is_refused(more: str, code: int, tmp_path: Path) -> None:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER}")
    data = demo_dll()
    start = data.index(b"\x50\xed\x55\xba\x01\0\x10\0")
    (tmp_path / "data.fatbin").write_bytes(data[start : start + 16 + int.from_bytes(data[start + 8 : start + 16], "little")])
    source, path = tmp_path / "host.c", tmp_path / "host.dll"
    source.write_text(SOURCE % ((tmp_path / "data.fatbin").as_posix(), more))
    subprocess.run([COMPILER, "-shared", "-Os", "-o", path, source], check=True, timeout=60)
    answer = fatpatch("graft", path, *DONOR, "-o", tmp_path / "out.dll")
    assert answer.code == code, answer
    assert (tmp_path / "out.dll").exists() == (not code)
    if not code:  # with the symbols and the long section names that mingw leaves in
        assert [item.arch for item in Pe((tmp_path / "out.dll").read_bytes()).fatbins()[0]] == [61, 60, 70, 75]
