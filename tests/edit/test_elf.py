"""Grafts into linked ELF files, looked at by everything but fatpatch: loaders, binutils, LIEF, pyelftools, patchelf, cuobjdump."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import lief
import pytest
from builders.fatbin import container, entry
from conftest import SAMPLES, Run
from edit.elf_builder import (
    AARCH64,
    PT_LOAD,
    PT_NOTE,
    PT_PHDR,
    Answer,
    BuildError,
    Entry,
    Host,
    Stored,
    build,
    build_loader,
    cubin,
    donated,
    entries_at_run_time,
    fatbins,
    fatbins_in_memory,
    fatpatch,
    segments_of,
    stored_entries,
    summed,
)
from elftools.elf.elffile import ELFFile

RELR = "-Wl,-z,pack-relative-relocs"
LLD = "-fuse-ld=lld"
PIE = ("-pie", "-fPIE")
FIXED = ("-no-pie", "-fno-pie")
NOTE_SLOT, MOVED_TABLE, GROWN = "new segment in a PT_NOTE slot", "new segment, program headers moved", "last segment grown"
HOSTS = (
    Host("shared"),
    Host("shared-relr", (RELR,)),
    Host("shared-stripped", ("-s",)),
    Host("shared-no-build-id", ("-Wl,--build-id=none",)),
    Host("shared-no-notes", notes=False),
    Host("shared-no-sections", sections=False),
    Host("shared-no-sections-relr", (RELR,), sections=False),
    Host("shared-no-sections-no-notes", sections=False, notes=False),
    Host("shared-three-modules", modules=3),
    Host("shared-three-modules-relr-no-notes", (RELR,), modules=3, notes=False),
    Host("shared-large-bss", blank=64 << 20),
    Host("shared-large-bss-no-notes", blank=16 << 20, notes=False),
    Host("shared-huge-pages", ("-Wl,-z,max-page-size=0x200000",)),
    Host("shared-packed", ("-Wl,-z,noseparate-code",)),
    Host("lld", (LLD,)),
    Host("lld-relr", (LLD, "-Wl,--pack-dyn-relocs=relr")),
    Host("lld-in-place-too", (LLD, "-Wl,--apply-dynamic-relocs")),
    Host("gold", ("-fuse-ld=gold",)),
    Host("pie", PIE, program=True),
    Host("pie-relr", (*PIE, RELR), program=True),
    Host("pie-no-notes", PIE, program=True, notes=False),
    Host("pie-no-sections", PIE, program=True, sections=False),
    Host("pie-lld", (*PIE, LLD), program=True),
    Host("fixed", FIXED, program=True),
    Host("fixed-read-only-wrappers", FIXED, program=True, flags="a"),
    Host("fixed-no-notes", FIXED, program=True, notes=False),
    Host("fixed-large-bss", FIXED, program=True, blank=64 << 20),
    Host("static", ("-static",), program=True),
    Host("static-no-notes", ("-static",), program=True, notes=False),
    Host("static-pie-no-notes", ("-static-pie", "-fPIE"), program=True, notes=False),
    Host("aarch64-shared", compiler=AARCH64),
    Host("aarch64-shared-no-notes", compiler=AARCH64, notes=False),
    Host("aarch64-pie", PIE, compiler=AARCH64, program=True),
    Host("aarch64-fixed", FIXED, compiler=AARCH64, program=True),
)
BY_NAME = {host.name: host for host in HOSTS}


class Case(NamedTuple):
    """A host before and after a graft; ``wanted`` are the entries that each wrapper should lead to now."""

    host: Host
    before: Path
    after: Path
    cubins: tuple[Path, ...]
    wanted: list[list[Stored]]
    told: str

    @property
    def table_moved(self) -> bool:
        return MOVED_TABLE in self.told


def grafted(*arguments: object) -> Answer:
    answer = fatpatch("graft", *arguments)
    assert answer.code == 0, answer
    assert (passed := re.search(r"(\d+) of (\d+) checks passed", answer.out)), answer
    assert passed[1] == passed[2]
    return answer


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def flat(fatbins: list[list[Stored]]) -> list[Entry]:
    return [item for number, stored in enumerate(fatbins) for item in summed(number, stored)]


def built(host: Host, folder: Path, modules: tuple[bytes, ...] | None = None) -> Path:
    try:
        return build(host, folder, modules or fatbins(SAMPLES))
    except BuildError as error:
        pytest.skip(str(error))


def tool(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a tool; skip where there is none."""
    if shutil.which(str(command[0])) is None:
        beside = Path(sys.executable).with_name(str(command[0]))
        if not beside.is_file():
            pytest.skip(f"needs {command[0]}")
        command = (beside, *command[1:])
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return build_loader(tmp_path_factory.mktemp("loader"))
    except BuildError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def donors(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Cubins of the demo kernels as files, by SM number."""
    folder = tmp_path_factory.mktemp("donors")
    for arch in (60, 61, 70):
        (folder / f"sm_{arch}.cubin").write_bytes(cubin(SAMPLES, arch))
    return {arch: folder / f"sm_{arch}.cubin" for arch in (60, 61, 70)}


@pytest.fixture(scope="module", params=HOSTS, ids=lambda host: host.name)
def case(request: pytest.FixtureRequest, donors: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    host = request.param
    folder = tmp_path_factory.mktemp(host.name)
    before = built(host, folder)
    after = folder / f"grafted-{before.name}"
    wanted = [stored_entries(data) for data in fatbins(SAMPLES)[: host.modules]]
    cubins = [donors[61]]
    wanted[0].insert(0, donated(cubin(SAMPLES, 61), 61))
    if host.modules > 1:
        cubins.append(SAMPLES / "kernels.sm_100f.cubin")
        wanted[1].insert(0, donated(cubins[1].read_bytes(), 100, made_by_nvidia(100, 0x200000).flags & ~0x2000))
    answer = grafted(before, *(part for path in cubins for part in ("--cubin", path)), "-o", after)
    yield Case(host, before, after, tuple(cubins), wanted, answer.out)
    shutil.rmtree(folder)


def made_by_nvidia(arch: int, suffix: int) -> Stored:
    """The entry for a target that NVIDIA's nvFatbin wrote into the sample."""
    everything = stored_entries((SAMPLES / "kernels.fatbin").read_bytes())
    (found,) = (item for item in everything if (item.arch, item.flags & 0x300000) == (arch, suffix))
    return found


def found_at_run_time(host: Host, path: Path, loader: Path) -> list[Entry]:
    """What the loaded file finds; aarch64 by the emulator of a loader, and by qemu where there is one."""
    if host.compiler != AARCH64:
        return entries_at_run_time(host, path, loader)
    emulator = shutil.which("qemu-aarch64")
    if emulator is not None and host.program:
        library = Path(tool(AARCH64, "-print-file-name=libc.so.6").stdout.strip())
        done = tool(emulator, "-L", library.parent.parent, path)
        assert done.returncode == 0, done
        return [Entry(*map(int, line.split())) for line in done.stdout.splitlines()]
    return flat(fatbins_in_memory(path.read_bytes()))


# Every kind of file


def test_the_wrappers_lead_to_the_new_image(case: Case, loader: Path) -> None:
    old = [stored_entries(data) for data in fatbins(SAMPLES)[: case.host.modules]]
    assert fatbins_in_memory(case.before.read_bytes()) == old
    assert fatbins_in_memory(case.after.read_bytes()) == case.wanted
    assert found_at_run_time(case.host, case.before, loader) == flat(old)
    assert found_at_run_time(case.host, case.after, loader) == flat(case.wanted)
    assert case.wanted[0][0].data.rstrip(b"\0") == case.cubins[0].read_bytes().rstrip(b"\0")


def test_old_bytes_change_only_where_they_must(case: Case) -> None:
    before, after = case.before.read_bytes(), case.after.read_bytes()
    (phoff,), (phnum,) = struct.unpack_from("<Q", before, 32), struct.unpack_from("<H", before, 56)
    allowed = bytearray(len(before))
    for at, size in ((32, 16), (56, 2), (60, 2), (phoff, phnum * 56)):
        allowed[at : at + size] = b"\1" * size
    for section in ELFFile(BytesIO(before)).iter_sections():
        if section["sh_type"] == "SHT_SYMTAB":  # symbols of what moved follow it
            allowed[section["sh_offset"] : section["sh_offset"] + section["sh_size"]] = b"\1" * section["sh_size"]
    modules = fatbins(SAMPLES)[: case.host.modules]
    for number, data in enumerate(modules):
        at = before.index(data)
        if case.wanted[number] == stored_entries(data):
            assert after[at : at + len(data)] == data
            continue
        assert not any(after[at : at + len(data)])
        allowed[at : at + len(data)] = b"\1" * len(data)
    pages = [at for at in range(0, len(before), 4096) if before[at : at + 4096] != after[at : min(at + 4096, len(before))]]
    changed = [
        index for at in pages for index in range(at, min(at + 4096, len(before))) if before[index] != after[index] and not allowed[index]
    ]
    words = sorted({index // 8 for index in changed})
    assert 1 <= len(words) <= 2 * len(case.cubins), "a wrapper's pointer, and its addend"
    new = [struct.unpack_from("<Q", after, word * 8)[0] for word in words]
    homes = [segment for segment in segments_of(after) if segment.type == PT_LOAD and segment not in segments_of(before)]
    assert all(any(home.address <= value < home.address + home.file_size for home in homes) for value in new)


def test_segments(case: Case) -> None:
    before, after = segments_of(case.before.read_bytes()), segments_of(case.after.read_bytes())
    loads = [segment for segment in after if segment.type == PT_LOAD]
    (new,) = [segment for segment in loads if segment not in before]
    assert loads == [*(segment for segment in before if segment.type == PT_LOAD), new]
    assert new.flags == 4
    assert new.file_size == new.memory_size
    size = case.before.stat().st_size
    end = max(segment.address + segment.memory_size for segment in loads[:-1])
    needed = max(end, size + loads[0].address - loads[0].offset) if case.table_moved else end
    assert end <= new.address < needed + 2 * new.alignment
    kept = [segment for segment in before if segment.type not in (PT_LOAD, PT_NOTE, PT_PHDR)]
    assert kept == [segment for segment in after if segment.type not in (PT_LOAD, PT_NOTE, PT_PHDR)]
    if case.table_moved:
        assert len(after) == len(before) + 1
        (start,) = struct.unpack_from("<Q", case.after.read_bytes(), 32)
        assert start == new.offset
        assert new.address - new.offset == loads[0].address - loads[0].offset, "older kernels compute AT_PHDR so"
        headers = [segment for segment in after if segment.type == PT_PHDR]
        assert all((row.offset, row.address, row.file_size) == (start, new.address, len(after) * 56) for row in headers)
    else:
        assert len(after) == len(before)
        assert [row for row in before if row.type == PT_PHDR] == [row for row in after if row.type == PT_PHDR]
        notes = [[row for row in rows if row.type == PT_NOTE] for rows in (before, after)]
        assert len(notes[0]) == len(notes[1]) + 1
    gap = new.offset - size if case.table_moved else 0
    assert gap <= case.host.blank + 3 * new.alignment
    assert case.after.stat().st_size - size < sum(len(item.data) + 128 for stored in case.wanted for item in stored) + 64 * 64 + gap


def test_the_user_is_told_what_was_done(case: Case) -> None:
    no_notes = PT_NOTE not in [segment.type for segment in segments_of(case.before.read_bytes())]
    assert (MOVED_TABLE if no_notes else NOTE_SLOT) in case.told
    assert ("do not run strip" in case.told) == no_notes
    assert f"fatpatch undo {case.after}" in case.told
    notes = [(row.offset, row.file_size) for row in segments_of(case.before.read_bytes()) if row.type == PT_NOTE]
    left = [(row.offset, row.file_size) for row in segments_of(case.after.read_bytes()) if row.type == PT_NOTE]
    properties = [(row.offset, row.file_size) for row in segments_of(case.before.read_bytes()) if row.type == 0x6474E553]
    lost = [note for note in notes if note not in left]
    assert ("build-id is no longer" in case.told) == any(note not in properties for note in lost)


def test_readelf_has_no_complaint(case: Case) -> None:
    before = tool("readelf", "--wide", "-a", case.before)
    after = tool("readelf", "--wide", "-a", case.after)
    assert (after.returncode, after.stderr) == (0, before.stderr)
    assert "Warning" not in tool("readelf", "-lSW", case.after).stderr
    relocations = [re.findall(r"^[0-9a-f]{12,16} .*R_\w+", done.stdout, re.MULTILINE) for done in (before, after)]
    assert [line[:60] for line in relocations[0]] == [line[:60] for line in relocations[1]]
    if case.host.sections:
        home = next(row for row in reversed(segments_of(case.after.read_bytes())) if row.type == PT_LOAD)
        rows = re.findall(r"\] \.nv_fatbin +PROGBITS +(\w+) (\w+) (\w+) 00 +A ", after.stdout)
        address, offset, size = (int(text, 16) for text in rows[-1])
        assert len(rows) == 2
        assert home.address <= address < address + size <= home.address + home.file_size
        assert offset - address == home.offset - home.address


def test_lief_reads_the_same(case: Case) -> None:
    binary = lief.ELF.parse(str(case.after))
    assert binary is not None
    loads = [segment for segment in binary.segments if segment.type == lief.ELF.Segment.TYPE.LOAD]
    assert [segment.virtual_address for segment in loads] == sorted(segment.virtual_address for segment in loads)
    content = bytes(loads[-1].content)
    for number, wanted in enumerate(case.wanted):
        if wanted != stored_entries(fatbins(SAMPLES)[number]):
            behind = content.index(case.wanted[0][-1].data) if number else 0
            start = content.index(b"\x50\xed\x55\xba\x01\0\x10\0", behind)
            assert stored_entries(content, start) == wanted
    addends = {relocation.address: relocation.addend for relocation in binary.relocations if int(relocation.type) & 0xFFFF in (8, 1027)}
    old = lief.ELF.parse(str(case.before))
    assert old is not None
    changed = [row for row in old.relocations if addends.get(row.address, row.addend) != row.addend]
    moving = case.before.suffix == ".so" or binary.is_pie
    assert len(changed) == (len(case.cubins) if moving and not old.has(lief.ELF.DynamicEntry.TAG.RELR) else 0)
    assert all(loads[-1].virtual_address <= addends[row.address] < loads[-1].virtual_address + len(content) for row in changed)


def test_pyelftools_reads_the_same(case: Case) -> None:
    with case.before.open("rb") as first, case.after.open("rb") as second:
        before, after = ELFFile(first), ELFFile(second)
        assert after.num_segments() == before.num_segments() + case.table_moved
        olds = [(section.name, dict(section.header)) for section in before.iter_sections()]
        news = [(section.name, dict(section.header)) for section in after.iter_sections()]
        assert news[: len(olds)] == olds
        assert len(news) == len(olds) + case.host.sections
        if case.host.sections:
            name, header = news[-1]
            assert (name, header["sh_type"], header["sh_flags"], header["sh_addralign"]) == (".nv_fatbin", "SHT_PROGBITS", 2, 16)
            data = after.get_section(len(olds)).data()
            assert stored_entries(data) == case.wanted[0]
            end = max(section["sh_offset"] + section["sh_size"] for section in before.iter_sections() if section["sh_type"] != "SHT_NOBITS")
            assert header["sh_offset"] >= end
        tables = [[part for part in elf.iter_segments() if part["p_type"] == "PT_DYNAMIC"] for elf in (before, after)]
        tags = [[(tag.entry.d_tag, tag.entry.d_val) for part in parts for tag in part.iter_tags()] for parts in tables]
        assert tags[0] == tags[1]


def test_strip_keeps_everything(case: Case, loader: Path, tmp_path: Path) -> None:
    if case.table_moved:
        pytest.skip("strip breaks such a file, and the user is told so")
    if not case.host.sections:
        pytest.skip("strip needs section headers")
    copy = tmp_path / case.after.name
    for option in ("--strip-debug", "--strip-all"):
        done = tool("aarch64-linux-gnu-strip" if case.host.compiler == AARCH64 else "strip", option, "-o", copy, case.after)
        assert (done.returncode, done.stderr) == (0, "")
        assert fatbins_in_memory(copy.read_bytes()) == case.wanted
        assert found_at_run_time(case.host, copy, loader) == flat(case.wanted)


def test_patchelf_keeps_everything(case: Case, loader: Path, tmp_path: Path) -> None:
    if case.host.static or not case.host.sections:
        pytest.skip("patchelf needs a dynamic file with section headers")
    copy = tmp_path / case.after.name
    shutil.copy(case.after, copy)
    done = tool("patchelf", "--force-rpath", "--set-rpath", "/an/rpath/that/is/longer/than/any/string/that/the/file/has/room/for", copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert fatbins_in_memory(copy.read_bytes()) == case.wanted
    assert found_at_run_time(case.host, copy, loader) == flat(case.wanted)


def test_again_and_back(case: Case, tmp_path: Path) -> None:
    copy = tmp_path / case.after.name
    for suffix in ("", ".fatpatch-undo"):
        shutil.copy(f"{case.after}{suffix}", f"{copy}{suffix}")
    whole = sha256(copy), (copy.stat().st_mtime_ns, copy.stat().st_ino)
    again = fatpatch("graft", copy, *(part for path in case.cubins for part in ("--cubin", path)), "--in-place")
    assert again.code == 0
    assert len(re.findall(r"sm_\w+ is there already", again.out)) == len(case.cubins)
    assert "nothing was written" in again.out
    assert (sha256(copy), (copy.stat().st_mtime_ns, copy.stat().st_ino)) == whole
    back = fatpatch("undo", copy)
    assert back.code == 0
    assert sha256(copy) == sha256(case.before)
    assert sha256(case.before) in back.out
    assert not Path(f"{copy}.fatpatch-undo").exists()


# Each by itself


LISTED = ("shared", "shared-three-modules", "shared-stripped", "shared-no-notes", "lld", "pie", "fixed", "static", "aarch64-shared")


@pytest.mark.oracle
@pytest.mark.parametrize("name", LISTED)
def test_cuobjdump_lists_the_new_image(name: str, donors: dict[int, Path], loader: Path, oracle: Path, tmp_path: Path) -> None:
    host = BY_NAME[name]
    path, result = built(host, tmp_path), tmp_path / "result"
    modules = fatbins(SAMPLES)[: host.modules]
    answer = grafted(path, "--cubin", donors[61], "--cuobjdump", "-o", result)
    assert "all fatbins of the section moved with it" in answer.out
    listed = tool(oracle, "-all", "-lelf", result)
    assert listed.returncode == 0, listed
    old = [item for data in modules for item in stored_entries(data)]
    suffix = {75: "sm_75", 90: "sm_90a", 70: "sm_70"}
    assert re.findall(r"\.(sm_\w+)\.cubin", listed.stdout) == ["sm_61", *(suffix[item.arch] for item in old)]
    whole = [stored_entries(data) for data in modules]
    whole[0].insert(0, donated(donors[61].read_bytes(), 61))
    assert fatbins_in_memory(result.read_bytes()) == whole
    assert found_at_run_time(host, result, loader) == flat(whole)
    first = re.search(r"(\S+sm_61\.cubin)", listed.stdout)
    assert first is not None
    subprocess.run([oracle, "-xelf", first[1], result], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert (tmp_path / first[1]).read_bytes() == donors[61].read_bytes()
    if MOVED_TABLE not in answer.out:
        assert tool("aarch64-linux-gnu-strip" if host.compiler == AARCH64 else "strip", result).returncode == 0
        assert fatbins_in_memory(result.read_bytes()) == whole
        assert found_at_run_time(host, result, loader) == flat(whole)


def test_without_the_option_cuobjdump_is_said_to_be_blind(donors: dict[int, Path], tmp_path: Path) -> None:
    path = built(BY_NAME["shared"], tmp_path)
    assert "--cuobjdump moves all of them" in grafted(path, "--cubin", donors[61], "-o", tmp_path / "result").out


def test_the_command_as_a_user_runs_it(donors: dict[int, Path], run: Run, loader: Path, tmp_path: Path) -> None:
    host = BY_NAME["shared"]
    path = built(host, tmp_path)
    path.chmod(0o750)
    before = sha256(path)
    done = run("graft", path, "--cubin", donors[61], "--in-place", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert [(item["tactic"], item["target"], item["replaced"]) for item in document["grafted"]] == [(NOTE_SLOT, "sm_61", False)]
    assert document["size_after"] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o750
    assert [item.arch for item in entries_at_run_time(host, path, loader)] == [61, 75]
    assert run("verify", path).returncode == 0
    undone = run("undo", path)
    assert (undone.returncode, sha256(path)) == (0, before)
    assert sorted(item.name for item in tmp_path.iterdir() if "fatpatch" in item.name) == []


SECOND = (
    "shared",
    "shared-no-notes",
    "shared-no-sections",
    "shared-relr",
    "lld",
    "pie-no-notes",
    "fixed",
    "static-no-notes",
    "aarch64-shared",
)


@pytest.mark.parametrize("name", SECOND)
def test_further_grafts_grow_the_last_segment(name: str, donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    host = BY_NAME[name]
    path = built(host, tmp_path)
    states = [sha256(path)]
    wanted = [stored_entries(data) for data in fatbins(SAMPLES)[: host.modules]]
    for count, arch in enumerate((61, 60, 70)):
        answer = grafted(path, "--cubin", donors[arch], "--in-place")
        assert (GROWN in answer.out) == bool(count)
        wanted[0].insert(0, donated(donors[arch].read_bytes(), arch))
        data = path.read_bytes()
        assert fatbins_in_memory(data) == wanted
        assert found_at_run_time(host, path, loader) == flat(wanted)
        assert tool("readelf", "-lSW", path).stderr == ""
        assert data.count(donors[arch].read_bytes()) == 1
        states.append(sha256(path))
    lengths = [
        sum(segment.type == PT_LOAD for segment in segments_of(data)) for data in (path.read_bytes(), (tmp_path / path.name).read_bytes())
    ]
    assert lengths[0] == lengths[1]
    for state in states[2:0:-1]:
        assert fatpatch("undo", path, "--last").code == 0
        assert sha256(path) == state
    assert fatpatch("undo", path).code == 0
    assert sha256(path) == states[0]


def test_a_graft_behind_strip(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    host = BY_NAME["shared"]
    path, once, twice = built(host, tmp_path), tmp_path / "once.so", tmp_path / "twice.so"
    grafted(path, "--cubin", donors[61], "-o", once)
    assert tool("strip", once).returncode == 0
    Path(f"{once}.fatpatch-undo").unlink()
    answer = grafted(once, "--cubin", donors[60], "-o", twice)
    assert "do not run strip" in answer.out, "the names of the sections lie behind the segment, which cannot grow over them"
    assert [item.arch for item in entries_at_run_time(host, twice, loader)] == [60, 61, 75]


@pytest.mark.parametrize("name", ["shared", "pie", "fixed"])
def test_a_graft_behind_patchelf(name: str, donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    host = BY_NAME[name]
    path, result = built(host, tmp_path), tmp_path / "result"
    assert tool("patchelf", "--force-rpath", "--set-rpath", "/an/rpath/" * 20, path).returncode == 0
    grafted(path, "--cubin", donors[61], "-o", result)
    assert [item.arch for item in entries_at_run_time(host, result, loader)] == [61, 75]
    assert tool("readelf", "-lSW", result).stderr == ""


def test_a_free_slot_is_taken_before_a_note(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    """PT_NULL, as tools leave one; nothing is lost then."""

    def freed(data: bytearray) -> None:
        index = next(index for index, segment in enumerate(segments_of(bytes(data))) if segment.type == 0x6474E550)  # PT_GNU_EH_FRAME
        struct.pack_into("<I", data, struct.unpack_from("<Q", data, 32)[0] + index * 56, 0)

    host = Host("odd", after=freed)
    path, result = built(host, tmp_path), tmp_path / "result"
    answer = grafted(path, "--cubin", donors[61], "-o", result)
    assert "build-id" not in answer.out
    kinds = [[segment.type for segment in segments_of(file.read_bytes())] for file in (path, result)]
    assert (kinds[0].count(0), kinds[1].count(0)) == (1, 0)
    assert kinds[0].count(PT_NOTE) == kinds[1].count(PT_NOTE) > 0
    assert [item.arch for item in entries_at_run_time(host, result, loader)] == [61, 75]


@pytest.mark.parametrize("name", ["shared", "shared-no-sections"])
def test_what_lies_behind_the_file_stays(name: str, donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    """As in a program that carries an archive at its end."""
    host = BY_NAME[name]
    path, result = built(host, tmp_path), tmp_path / "result"
    path.write_bytes(path.read_bytes() + b"appended" * 1001)
    size = path.stat().st_size
    grafted(path, "--cubin", donors[61], "-o", result)
    assert result.read_bytes()[size - 8008 : size] == b"appended" * 1001
    assert [item.arch for item in entries_at_run_time(host, result, loader)] == [61, 75]


LINKED_LATER = """.section __nv_relfatbin,"a",@progbits
.balign 16
more: .incbin "{}"
.section .nvFatBinSegment,"aw"
.long 0x466243b1, 1
.quad more, 0
wrappers_end:"""


def test_modules_of_two_sections(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    """.nv_fatbin and __nv_relfatbin, as in programs built with -rdc=true."""
    (tmp_path / "more.fatbin").write_bytes(fatbins(SAMPLES)[1])
    host = Host("odd", extra=LINKED_LATER.format(tmp_path / "more.fatbin"))
    path, result = built(host, tmp_path), tmp_path / "result"
    grafted(path, "--cubin", donors[61], "--cubin", SAMPLES / "kernels.sm_100f.cubin", "-o", result)
    for _ in range(2):
        found = entries_at_run_time(host, result, loader)
        assert [(item.wrapper, item.arch) for item in found] == [(0, 61), (0, 75), (1, 100), (1, 90)]
        assert tool("strip", result).returncode == 0


def test_the_cuobjdump_option_leaves_other_sections_alone(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    """A fatbin among constants: their section header must stay with them, else strip throws them away."""
    host = BY_NAME["shared"]._replace(home=".rodata")
    path, result = built(host, tmp_path), tmp_path / "result"
    answer = fatpatch("graft", path, "--cubin", donors[61], "--cuobjdump", "-o", result)
    if answer.code:
        assert answer.code in (5, 6), answer
        assert not result.exists()
        return
    assert tool("strip", result).returncode == 0
    assert [item.arch for item in entries_at_run_time(host, result, loader)] == [61, 75]


# In place


def code_of(data: bytes) -> int:
    """Where the code of a cubin's first kernel is."""
    elf = ELFFile(BytesIO(data))
    return next(section["sh_offset"] for section in elf.iter_sections() if section.name.startswith(".text."))


def other_61(samples: Path) -> bytes:
    """The sm_61 cubin with other code: one constant of one instruction."""
    data = bytearray(cubin(samples, 61))
    data[code_of(cubin(samples, 61)) + 40] ^= 1
    return bytes(data)


def with_61(samples: Path) -> tuple[bytes, ...]:
    """A module whose sm_61 image differs from the donor's."""
    images = [entry(data, kind=2, arch=arch, major=1, minor=7) for arch, data in ((61, other_61(samples)), (75, cubin(samples, 75)))]
    return (container(*images),)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
@pytest.mark.parametrize("name", ["shared", "shared-relr", "shared-no-sections", "lld", "pie", "fixed", "aarch64-shared"])
def test_a_replaced_image_stays_in_place(name: str, codec: str, donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    host = BY_NAME[name]
    path, result = built(host, tmp_path, with_61(SAMPLES)), tmp_path / "result"
    answer = fatpatch("graft", path, "--cubin", donors[61], "-o", result)
    assert (answer.code, result.exists()) == (6, False)
    assert "--replace" in answer.err
    answer = grafted(path, "--cubin", donors[61], "--replace", "--compress", codec, "-o", result)
    assert "  in place\n" in answer.out
    before, after = path.read_bytes(), result.read_bytes()
    start, size = before.index(with_61(SAMPLES)[0]), len(with_61(SAMPLES)[0])
    assert (before[:start], before[start + size :]) == (after[:start], after[start + size :])
    (found,) = fatbins_in_memory(after)
    assert [item.arch for item in found] == [61, 75]
    assert found[1].data == cubin(SAMPLES, 75)
    assert found[0].flags & 0xF000 == {"none": 0, "lz4": 0x2000, "zstd": 0x8000}[codec]
    assert codec != "none" or found[0] == donated(donors[61].read_bytes(), 61)
    assert not any(after[start + 16 + int.from_bytes(after[start + 8 : start + 16], "little") : start + size])
    assert found_at_run_time(host, result, loader) == flat([found])
    assert fatpatch("undo", result).code == 0
    assert result.read_bytes() == before


@pytest.mark.oracle
@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_cuobjdump_reads_a_replaced_image(codec: str, donors: dict[int, Path], oracle: Path, tmp_path: Path) -> None:
    path, result = built(BY_NAME["shared"], tmp_path, with_61(SAMPLES)), tmp_path / "result"
    grafted(path, "--cubin", donors[61], "--replace", "--compress", codec, "-o", result)
    listed = tool(oracle, "-lelf", result)
    assert re.findall(r"\.(sm_\w+)\.cubin", listed.stdout) == ["sm_61", "sm_75"]
    subprocess.run([oracle, "-xelf", "sm_61", result], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    (cut,) = tmp_path.glob("*.sm_61.cubin")
    assert cut.read_bytes() == donors[61].read_bytes()


@pytest.mark.parametrize("name", ["shared", "lld", "pie", "fixed"])
def test_one_module_in_place_another_moved(name: str, donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    host = BY_NAME[name]._replace(modules=2)
    path, result = built(host, tmp_path, (*with_61(SAMPLES), fatbins(SAMPLES)[1])), tmp_path / "result"
    answer = grafted(path, "--cubin", donors[61], "--cubin", SAMPLES / "kernels.sm_100f.cubin", "--replace", "-o", result)
    assert re.findall(r"^  (\w+ .*)$", answer.out, re.MULTILINE) == ["in place", NOTE_SLOT]
    found = fatbins_in_memory(result.read_bytes())
    assert [[item.arch for item in stored] for stored in found] == [[61, 75], [100, 90]]
    assert found[0][0] == donated(donors[61].read_bytes(), 61)
    assert found_at_run_time(host, result, loader) == flat(found)
    assert fatpatch("undo", result).code == 0
    assert sha256(result) == sha256(path)


@pytest.mark.parametrize("room", [23743, 23744, 40000])
def test_zeros_behind_a_fatbin_are_room_for_it(room: int, donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    """23,744 bytes are the entry of the sm_61 image."""
    host = BY_NAME["shared"]._replace(modules=2)
    first, second = fatbins(SAMPLES)[:2]
    padded = first + bytes(room)
    path, result = built(host, tmp_path, (padded, second)), tmp_path / "result"
    answer = grafted(path, "--cubin", donors[61], "-o", result)
    gap = -(len(padded)) % 16  # the assembler's
    assert ("  in place\n" in answer.out) == (room + gap >= 64 + len(cubin(SAMPLES, 61)))
    found = fatbins_in_memory(result.read_bytes())
    assert found == [[donated(donors[61].read_bytes(), 61), *stored_entries(first)], stored_entries(second)]
    assert found_at_run_time(host, result, loader) == flat(found)


def test_zeros_that_are_a_variable_are_no_room(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    """A fatbin among constants, as include_bytes and objcopy put it there: what follows it is not padding."""
    host = BY_NAME["shared"]._replace(home=".rodata", extra='.section .rodata,"a",@progbits\n.globl constants\nconstants: .zero 40000')
    path, result = built(host, tmp_path), tmp_path / "result"
    grafted(path, "--cubin", donors[61], "-o", result)
    binary = lief.ELF.parse(str(path))
    assert binary is not None
    symbol = binary.get_symbol("constants")
    assert symbol is not None
    at = symbol.value  # in the first segment: also its offset
    assert not any(path.read_bytes()[at : at + 40000])
    assert not any(result.read_bytes()[at : at + 40000]), "the program's constants are overwritten"


# Refusals


def nothing_written(folder: Path, path: Path, digest: str) -> bool:
    return sha256(path) == digest and not any("fatpatch" in item.name or item.name == "result" for item in folder.iterdir())


def refused(host: Host, donors: dict[int, Path], folder: Path, *options: str) -> Answer:
    path = built(host, folder)
    before = sha256(path)
    for target in (("-o", folder / "result"), ("--in-place",)):
        answer = fatpatch("graft", path, "--cubin", donors[61], *target, *options)
        assert nothing_written(folder, path, before)
    return answer


def without_the_wrappers_relocation(data: bytearray) -> None:
    """Make the RELATIVE relocation into the fatbin an R_X86_64_NONE; the value is still in place."""
    fatbin = data.index(fatbins(SAMPLES)[0])  # in the first segment, so this is its address too
    row = data.index(struct.pack("<QQ", 8, fatbin))
    data[row : row + 8] = bytes(8)


@pytest.mark.parametrize("options", [(), PIE], ids=["shared", "pie"])
def test_a_pointer_that_is_not_relocated_is_refused(options: tuple[str, ...], donors: dict[int, Path], tmp_path: Path) -> None:
    answer = refused(Host("odd", options, program=bool(options), after=without_the_wrappers_relocation), donors, tmp_path)
    assert answer.code == 6
    assert "no RELATIVE relocation" in answer.err


EXTRA = ".data\n.balign 8\n.globl more\n.hidden more\nmore: .quad fatbin0 + 16"


@pytest.mark.parametrize("options", [(), (RELR,), (LLD,), PIE], ids=["rela", "relr", "lld", "pie"])
def test_another_relocation_into_the_fatbin_is_refused(options: tuple[str, ...], donors: dict[int, Path], tmp_path: Path) -> None:
    answer = refused(Host("odd", options, program=options == PIE, extra=EXTRA), donors, tmp_path)
    assert answer.code == 6
    assert "leads into the payload" in answer.err


def test_another_relocation_does_no_harm_in_place(donors: dict[int, Path], tmp_path: Path) -> None:
    path = built(Host("odd", extra=EXTRA), tmp_path, with_61(SAMPLES))
    assert "  in place\n" in grafted(path, "--cubin", donors[61], "--replace", "-o", tmp_path / "result").out


def test_a_relocation_into_another_module_does_no_harm(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    host = Host("odd", modules=2, extra=EXTRA.replace("fatbin0", "fatbin1"))
    path = built(host, tmp_path)
    grafted(path, "--cubin", donors[61], "-o", tmp_path / "result")
    assert [item.arch for item in entries_at_run_time(host, tmp_path / "result", loader)] == [61, 75, 90]


# A symbol that can be preempted: its users are relocated by name, and would go on reading the old place
NAMED = ".globl fatbin_name\n.type fatbin_name, %object\n.set fatbin_name, fatbin0\n.data\n.balign 8\nmore: .quad fatbin_name + 16"


@pytest.mark.parametrize("options", [(), (LLD,)], ids=["ld", "lld"])
def test_a_reference_by_name_is_refused(options: tuple[str, ...], donors: dict[int, Path], tmp_path: Path) -> None:
    answer = refused(Host("odd", options, extra=NAMED), donors, tmp_path)
    assert answer.code == 6


def test_a_second_pointer_in_a_fixed_program_is_refused(donors: dict[int, Path], tmp_path: Path) -> None:
    answer = refused(Host("odd", FIXED, program=True, extra=EXTRA), donors, tmp_path)
    assert answer.code == 6


def test_two_wrappers_of_one_fatbin_both_follow(donors: dict[int, Path], loader: Path, tmp_path: Path) -> None:
    twin = '.section .nvFatBinSegment,"aw"\n.long 0x466243b1, 1\n.quad fatbin0, 0\nwrappers_end:'
    for options in ((), (RELR,), (LLD,)):
        host = Host("twins", options, extra=twin)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        path = built(host, folder)
        grafted(path, "--cubin", donors[61], "-o", folder / "result")
        found = entries_at_run_time(host, folder / "result", loader)
        assert [(item.wrapper, item.arch) for item in found] == [(0, 61), (0, 75), (1, 61), (1, 75)]


@pytest.mark.parametrize("name", ["lld"])
def test_wrappers_that_only_an_addend_fills_need_section_headers(name: str, donors: dict[int, Path], tmp_path: Path) -> None:
    answer = refused(BY_NAME[name]._replace(sections=False), donors, tmp_path)
    assert answer.code == 6
    assert "no wrapper points to it" in answer.err


def test_an_object_file_is_refused(donors: dict[int, Path], tmp_path: Path) -> None:
    built(BY_NAME["shared"], tmp_path)
    path = tmp_path / "host.o"
    assert tool("gcc", "-c", "-o", path, tmp_path / "wrappers.s").returncode == 0
    before = sha256(path)
    answer = fatpatch("graft", path, "--cubin", donors[61], "-o", tmp_path / "result")
    assert answer.code == 5
    assert "link it first" in answer.err
    assert nothing_written(tmp_path, path, before)


def test_a_machine_without_a_writer_is_refused(donors: dict[int, Path], tmp_path: Path) -> None:
    def other_machine(data: bytearray) -> None:
        data[18:20] = struct.pack("<H", 243)  # RISC-V

    answer = refused(Host("odd", after=other_machine), donors, tmp_path)
    assert answer.code == 5
    assert "x86-64 and aarch64" in answer.err


@pytest.mark.parametrize("damage", ["phoff", "relasz", "dynamic", "shnum"])
def test_a_damaged_file_is_refused(damage: str, donors: dict[int, Path], tmp_path: Path) -> None:
    def spoil(data: bytearray) -> None:
        segments = segments_of(bytes(data))
        table = next(segment for segment in segments if segment.type == 2)
        rows = list(struct.iter_unpack("<QQ", data[table.offset : table.offset + table.file_size]))
        size_row = next(index for index, row in enumerate(rows) if row[0] == 8)
        spots: dict[str, tuple[int, int]] = {
            "phoff": (32, 1 << 40),
            "relasz": (table.offset + size_row * 16 + 8, 1 << 30),
            "dynamic": (struct.unpack_from("<Q", data, 32)[0] + segments.index(table) * 56 + 8, 1 << 40),
            "shnum": (58, 0xFFFF0040),
        }
        at, value = spots[damage]
        struct.pack_into("<I" if damage == "shnum" else "<Q", data, at, value)

    answer = refused(Host("odd", after=spoil), donors, tmp_path)
    assert answer.code in (3, 4, 5, 6), answer
