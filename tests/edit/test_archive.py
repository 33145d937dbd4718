"""Members of zips, wheels and llamafiles replaced: every other byte where it was, and readable by everything that reads zips."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import SAMPLES, Run
from edit.zips import APE_MAGIC, STAMP, Entry, Row, build, deflated, extra_fields, in_process, record_row, rows, sparse, wheel
from elftools.elf.elffile import ELFFile

DLL, SO, GGUF = "ggml-cuda.dll", "ggml-cuda.so", "demo.Q8_0.gguf"
DONOR_DLL = ("--from", SAMPLES / "donor.dll", "--target", "sm_61")
DONOR_SO = ("--from", SAMPLES / "donor.so", "--target", "sm_61")
NAME = "kernels-1.0-py3-none-any.whl"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def demo_member(name: str) -> bytes:
    return zipfile.ZipFile(SAMPLES / "demo.llamafile").read(name)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """``fatpatch ARGS`` in this process: a start of Python each time would take most of the time of these tests."""
    return in_process(monkeypatch)


@pytest.fixture(scope="module")
def so() -> bytes:
    return demo_member(SO)


def ok(done: subprocess.CompletedProcess[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
    return done


def targets(run: Run, path: Path) -> dict[str, list[str]]:
    """The targets of each file below ``path``, by locator."""
    found: dict[str, list[str]] = {}

    def visit(node: dict) -> None:
        if images := [image["target"] for payload in node["payloads"] for image in payload["images"]]:
            found[node["locator"].split("!", 1)[-1] if "!" in node["locator"] else ""] = images
        for member in node["members"]:
            visit(member)

    for node in json.loads(ok(run("inspect", path, "--format", "json")).stdout)["files"]:
        visit(node)
    return found


def sound(path: Path) -> None:
    """Python's zipfile, Info-ZIP and the local headers agree that a zip is whole."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    if shutil.which("unzip"):
        done = subprocess.run(["unzip", "-tqq", path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def others_kept(old: bytes, new: bytes, edited: set[str]) -> tuple[dict[str, Row], dict[str, Row]]:
    """All members but the edited ones have their place and their bytes, local header and all; edited ones have whole headers."""
    before, after = rows(old), rows(new)
    assert list(before) == list(after)
    for name, row in before.items():
        if name in edited:
            assert after[name].sizes_agree
            assert not (after[name].flags | after[name].local_flags) & 8
            assert after[name].method == row.method
        else:
            assert after[name] == row
            end = row.data_at + row.stored
            assert new[row.header_at : end] == old[row.header_at : end]
    return before, after


def graft_both(run: Run, source: Path, folder: Path, *donor: object) -> bytes:
    """The result of -o, which --in-place must give, too; both are undone."""
    old, stamp = source.read_bytes(), source.stat().st_mtime_ns
    folder.mkdir(exist_ok=True)
    out, inside = folder / "out.bin", folder / source.name
    ok(run("graft", source, *donor, "-o", out))
    assert source.read_bytes() == old
    shutil.copy2(source, inside)
    ok(run("graft", inside, *donor, "--in-place"))
    new = out.read_bytes()
    assert inside.read_bytes() == new
    for path in (out, inside):
        sound(path)
        assert ok(run("verify", path)).stdout.endswith("is sound\n")
        assert sha(old) in ok(run("undo", path)).stdout
        assert path.read_bytes() == old
        assert path.stat().st_mtime_ns == stamp
    assert sorted(folder.iterdir()) == sorted([out, inside])
    out.write_bytes(new)
    return new


def test_llamafile(run: Run, tmp_path: Path) -> None:
    demo = SAMPLES / "demo.llamafile"
    old = demo.read_bytes()
    new = graft_both(run, demo, tmp_path / "work", *DONOR_DLL)
    out = tmp_path / "out.llamafile"
    out.write_bytes(new)
    assert new[: len(old)] == old
    before, after = others_kept(old, new, {DLL})
    assert before[GGUF].data_at == after[GGUF].data_at
    assert after[DLL].data_at % 0x10000 == 0 < after[DLL].data_at - len(old)
    assert after[DLL].size == after[DLL].stored > before[DLL].size
    assert targets(run, out) == {DLL: ["sm_61", "sm_60", "sm_70", "sm_75"], SO: ["sm_60", "sm_70", "sm_75"]}


def test_llamafile_still_runs(run: Run, tmp_path: Path) -> None:
    demo, out = SAMPLES / "demo.llamafile", tmp_path / "out.llamafile"
    ok(run("graft", demo, *DONOR_DLL, "-o", out))
    assert out.stat().st_mode == demo.stat().st_mode
    home = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}  # where the APE loader unpacks itself
    said = [
        subprocess.run(["sh", path, "-h"], capture_output=True, text=True, check=False, env=home, stdin=subprocess.DEVNULL)
        for path in (demo, out)
    ]
    if "usage: pledge" not in said[0].stdout + said[0].stderr:
        pytest.skip("this machine does not run the sample itself")
    assert (said[0].returncode, said[0].stdout, said[0].stderr) == (said[1].returncode, said[1].stdout, said[1].stderr)


@pytest.mark.parametrize("how", ["-o", "--in-place"])
def test_llamafile_twice_and_undone_by_record_and_by_mark(how: str, run: Run, tmp_path: Path) -> None:
    old = (SAMPLES / "demo.llamafile").read_bytes()
    stages, path = [old], tmp_path / "0.llamafile"
    path.write_bytes(old)
    for index, donor in enumerate((DONOR_DLL, DONOR_SO), 1):
        if how == "-o":
            ok(run("graft", path, *donor, "-o", tmp_path / f"{index}.llamafile"))
            path = tmp_path / f"{index}.llamafile"
        else:
            ok(run("graft", path, *donor, how))
        stages.append(path.read_bytes())
    beside = path.with_name(path.name + ".fatpatch-undo")
    kept = beside.read_bytes()
    sound(path)
    others_kept(stages[0], stages[2], {DLL, SO})
    assert {len(found) for found in targets(run, path).values()} == {4}
    assert stages[2][: len(stages[1])] == stages[1]

    def restart(*, record: bool) -> None:
        path.write_bytes(stages[2])
        beside.write_bytes(kept)
        if not record:
            beside.unlink()

    for record in (True, False):
        restart(record=record)
        assert "reverted 2 edits" in ok(run("undo", path)).stdout
        assert path.read_bytes() == old
        assert not beside.exists()
        restart(record=record)
        assert "reverted 1 edit" in ok(run("undo", path, "--last")).stdout
        assert path.read_bytes() == stages[1]
        assert beside.exists() == record
        ok(run("verify", path))
        assert "reverted 1 edit" in ok(run("undo", path, "--last")).stdout
        assert path.read_bytes() == old
        ok(run("undo", path), 6)
        assert path.read_bytes() == old


def test_mark_of_a_file_whose_old_bytes_changed_is_not_believed(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.llamafile"
    ok(run("graft", SAMPLES / "demo.llamafile", *DONOR_DLL, "-o", path))
    data = bytearray(path.read_bytes())
    data[(SAMPLES / "demo.llamafile").stat().st_size - 100] ^= 1
    path.write_bytes(data)
    ok(run("undo", path), 7)
    path.with_name(path.name + ".fatpatch-undo").unlink()
    ok(run("undo", path), 6)
    assert path.read_bytes() == data


def check_record(archive: zipfile.ZipFile) -> None:
    name = next(each for each in archive.namelist() if each.endswith(".dist-info/RECORD"))
    table = list(csv.reader(io.StringIO(archive.read(name).decode())))
    assert sorted(row[0] for row in table) == sorted(archive.namelist())
    for row in table:
        assert [row[0] == name] == [row[1:] == ["", ""]]
        if row[0] != name:
            assert record_row("x", archive.read(row[0])).strip().split(",")[1:] == row[1:]


def test_wheel(run: Run, so: bytes, tmp_path: Path) -> None:
    source = tmp_path / NAME
    source.write_bytes(wheel(so))
    new = graft_both(run, source, tmp_path / "work", *DONOR_SO)
    others_kept(source.read_bytes(), new, {"kernels/libgpu.so", "kernels-1.0.dist-info/RECORD"})
    out = tmp_path / "new" / NAME
    out.parent.mkdir()
    out.write_bytes(new)
    with zipfile.ZipFile(out) as archive:
        check_record(archive)
        assert archive.getinfo("kernels/libgpu.so").compress_type == zipfile.ZIP_DEFLATED
    assert targets(run, out)["kernels/libgpu.so"].count("sm_61") == 1
    folder = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    done = subprocess.run([*pip, "--target", folder, out], capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        pytest.skip("pip is not installed")
    assert done.returncode == 0, done.stderr
    library = folder / "kernels/libgpu.so"
    assert library.read_bytes() == zipfile.ZipFile(out).read("kernels/libgpu.so")
    assert "sm_61" in targets(run, library)[""]


def test_wheel_whose_record_is_signed_says_so(run: Run, so: bytes, tmp_path: Path) -> None:
    source = tmp_path / NAME
    source.write_bytes(wheel(so, more={"kernels-1.0.dist-info/RECORD.jws": b"{}"}))
    done = ok(run("graft", source, *DONOR_SO, "-o", tmp_path / "new.whl"))
    assert "RECORD.jws signs the old RECORD" in done.stdout


@pytest.mark.parametrize("outer", [0, 8], ids=["stored", "deflated"])
def test_nested_wheel(outer: int, run: Run, so: bytes, tmp_path: Path) -> None:
    source = tmp_path / "nested.zip"
    source.write_bytes(build([Entry("a.txt", b"text"), Entry(NAME, wheel(so), outer), Entry("b.bin", bytes(500) + b"end")]))
    new = graft_both(run, source, tmp_path / "work", *DONOR_SO)
    others_kept(source.read_bytes(), new, {NAME})
    inner = zipfile.ZipFile(io.BytesIO(zipfile.ZipFile(io.BytesIO(new)).read(NAME)))
    assert inner.testzip() is None
    check_record(inner)
    source.write_bytes(new)
    assert targets(run, source)[f"{NAME}!kernels/libgpu.so"].count("sm_61") == 1


EXTRA = struct.pack("<HH5s", 0x5455, 5, b"\1\0\0\0\x60")  # Info-ZIP's time stamp
UNIX = struct.pack("<HH11s", 0x7875, 11, b"\1\4\0\0\0\0\4\0\0\0\0")


@pytest.mark.parametrize("method", [0, 8], ids=["stored", "deflated"])
@pytest.mark.parametrize("case", ["plain", "descriptors", "zip64", "zip64 end", "zip64 members", "comment", "extra", "aligned", "prefix"])
def test_kinds_of_zips(case: str, method: int, run: Run, so: bytes, tmp_path: Path) -> None:
    wide, late = case in ("zip64", "zip64 members"), case == "descriptors"
    extra, central = (EXTRA + UNIX, EXTRA + UNIX[:4] + UNIX[4:]) if case == "extra" else (b"", b"")
    comment = b"a comment of the archive" if case in ("comment", "zip64") else b""
    align = 0x1000 if case == "aligned" else 1

    def entry(name: str, data: bytes, packing: int) -> Entry:
        return Entry(name, data, packing, extra, central, align, late, wide)

    entries = [entry("first.txt", b"first", 0), entry("lib.so", so, method), entry("sub/last.bin", bytes(range(256)) * 9, 8)]
    source = tmp_path / "a.zip"
    prefix = b"#!/bin/sh\nexit 0\n" if case == "prefix" else b""
    source.write_bytes(build(entries, prefix=prefix, comment=comment, zip64=case in ("zip64", "zip64 end")))
    sound(source)
    new = graft_both(run, source, tmp_path / "work", *DONOR_SO)
    _, after = others_kept(source.read_bytes(), new, {"lib.so"})
    assert zipfile.ZipFile(io.BytesIO(new)).comment == comment
    assert (b"PK\6\6" in new[-200:]) == (case in ("zip64", "zip64 end"))
    row = after["lib.so"]
    assert len(extra_fields(row.extra).get(1, b"")) == (24 if wide else 0)
    for kind, value in extra_fields(EXTRA + UNIX).items() if case == "extra" else []:
        assert extra_fields(row.local_extra)[kind] == extra_fields(row.extra)[kind] == value
    if align > 1 and method == 0:
        assert row.data_at % align == 0
    source.write_bytes(new)
    assert targets(run, source)["lib.so"].count("sm_61") == 1


@pytest.mark.parametrize("case", ["plain", "zip64", "descriptors", "zip64 end"])
def test_member_with_room_stays_in_its_place(case: str, run: Run, so: bytes, tmp_path: Path) -> None:
    source = tmp_path / "a.zip"
    wide, late = case == "zip64", case == "descriptors"
    library = Entry("lib.so", so, align=0x1000, room=0x20000, zip64=wide, descriptor=late, extra=EXTRA, central_extra=EXTRA)
    source.write_bytes(build([library, Entry("after.txt", b"after" * 50, 8)], zip64=case == "zip64 end", comment=b"c" * 30))
    old = source.read_bytes()
    new = graft_both(run, source, tmp_path / "work", *DONOR_SO)
    assert len(new) == len(old)
    before, after = others_kept(old, new, {"lib.so"})
    assert after["lib.so"].data_at == before["lib.so"].data_at
    assert after["lib.so"].size > len(so)
    assert "in place" in ok(run("graft", source, *DONOR_SO, "--dry-run")).stdout
    head, directory = before["lib.so"].header_at, new.rindex(b"PK\1\2", 0, new.rindex(b"PK\1\2"))
    for at in (index for index in range(len(old)) if old[index] != new[index]):
        assert head <= at < before["after.txt"].header_at or at >= directory
    source.write_bytes(new)
    assert targets(run, source)["lib.so"].count("sm_61") == 1


def test_local_header_that_keeps_zeros_beside_a_zip64_field(run: Run, so: bytes, tmp_path: Path) -> None:
    """Some streaming writers leave zeros in the 32-bit sizes though the header has a zip64 field: cosmopolitan would read 0 bytes."""
    source = tmp_path / "a.zip"
    data = bytearray(build([Entry("lib.so", so, room=0x20000, zip64=True), Entry("b", b"b")]))
    data[6:8] = struct.pack("<H", 8)
    data[14:26] = bytes(12)
    data[30 + 6 + 4 : 30 + 6 + 20] = bytes(16)
    source.write_bytes(data)
    done = run("graft", source, *DONOR_SO, "-o", tmp_path / "new.zip")
    ok(done)
    sound(tmp_path / "new.zip")
    assert rows((tmp_path / "new.zip").read_bytes())["lib.so"].sizes_agree


def test_replaced_member_of_equal_size(run: Run, so: bytes, tmp_path: Path) -> None:
    """An image exchanged for one as large: only that image and the check sums change."""
    source, library = tmp_path / "a.zip", tmp_path / "lib.so"
    library.write_bytes(so)
    ok(run("graft", library, *DONOR_SO, "--in-place"))
    ok(run("extract", SAMPLES / "donor.so", "-d", tmp_path / "images"))
    (image,) = (tmp_path / "images").rglob("*.cubin")
    changed, content = bytearray(library.read_bytes()), image.read_bytes()
    code = next(section["sh_offset"] for section in ELFFile(io.BytesIO(content)).iter_sections() if section.name.startswith(".text."))
    changed[changed.index(content) + code] ^= 1
    source.write_bytes(build([Entry("x", b"x"), Entry("lib.so", bytes(changed)), Entry("y", b"y")]))
    ok(run("graft", source, "--cubin", image, "-o", tmp_path / "no.zip"), 6)
    new = ok(run("graft", source, "--cubin", image, "--replace", "-o", tmp_path / "new.zip"))
    assert "in place" in new.stdout
    data = (tmp_path / "new.zip").read_bytes()
    assert len(data) == source.stat().st_size
    others_kept(source.read_bytes(), data, {"lib.so"})
    sound(tmp_path / "new.zip")
    ok(run("undo", tmp_path / "new.zip"))
    assert (tmp_path / "new.zip").read_bytes() == source.read_bytes()


def test_directory_too_large_to_travel(run: Run, so: bytes, tmp_path: Path) -> None:
    source = tmp_path / "many.zip"
    entries = [Entry(f"folder/file{index:05}.txt", b"%d" % index) for index in range(3000)]
    source.write_bytes(build([*entries, Entry("lib.so", so, align=64)]))
    new = graft_both(run, source, tmp_path / "work", *DONOR_SO)
    _, after = others_kept(source.read_bytes(), new, {"lib.so"})
    assert new[: source.stat().st_size] == source.read_bytes()
    assert after["lib.so"].data_at % 64 == 0
    path = tmp_path / "work" / "many.zip"
    inode = path.stat().st_ino
    ok(run("graft", path, *DONOR_SO, "--in-place"))
    assert path.stat().st_ino != inode
    path.with_name("many.zip.fatpatch-undo").unlink()
    ok(run("undo", path))
    assert path.read_bytes() == source.read_bytes()


@pytest.mark.parametrize("many", [0, 60])
def test_small_directory_does_not_leave_the_file(many: int, run: Run, so: bytes, tmp_path: Path) -> None:
    path = tmp_path / "few.zip"
    path.write_bytes(build([*(Entry(f"file{index:05}.txt", b"%d" % index) for index in range(many)), Entry("lib.so", so)]))
    inode = path.stat().st_ino
    ok(run("graft", path, *DONOR_SO, "--in-place"))
    assert path.stat().st_ino == inode
    sound(path)


def test_several_libraries_at_once(run: Run, so: bytes, tmp_path: Path) -> None:
    """Two equal libraries: one module each, so one of them is named."""
    source = tmp_path / "two.zip"
    source.write_bytes(build([Entry("one.so", so), Entry("two.so", so, 8), Entry("z", b"z")]))
    done = run("graft", source, *DONOR_SO, "-o", tmp_path / "both.zip")
    if done.returncode:
        assert "--module" in done.stderr
    out = tmp_path / "one.zip"
    ok(run("graft", source, *DONOR_SO, "--member", "two.so", "-o", out))
    others_kept(source.read_bytes(), out.read_bytes(), {"two.so"})
    assert {name: "sm_61" in found for name, found in targets(run, out).items()} == {"one.so": False, "two.so": True}


@pytest.mark.parametrize("method", [12, 14], ids=["bzip2", "lzma"])
def test_other_packing_is_refused(method: int, run: Run, so: bytes, tmp_path: Path) -> None:
    source, out = tmp_path / "a.zip", tmp_path / "b.zip"
    with zipfile.ZipFile(source, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("lib.so", STAMP), so, method)
    done = ok(run("graft", source, *DONOR_SO, "-o", out), 5)
    assert "hint:" in done.stderr
    assert not out.exists()


def test_unadjusted_prefix_is_refused(run: Run, so: bytes, tmp_path: Path) -> None:
    source, out = tmp_path / "a.zip", tmp_path / "b.zip"
    source.write_bytes(b"#!/bin/sh\n" + build([Entry("lib.so", so)]))
    done = ok(run("graft", source, *DONOR_SO, "-o", out), 5)
    assert "zip -A" in done.stderr
    assert not out.exists()


# --- large files


def test_program_that_would_pass_4_gib_is_refused(run: Run, tmp_path: Path) -> None:
    dll = demo_member(DLL)
    source = tmp_path / "a.llamafile"
    sparse(source, Entry(DLL, dll), (4 << 30) - 70_000, demo_member(GGUF), prefix=APE_MAGIC)
    assert (4 << 30) - 200_000 < source.stat().st_size < (4 << 30) - 1
    before = source.stat()
    for where in (("-o", tmp_path / "b.llamafile"), ("--in-place",), ("--dry-run",)):
        done = ok(run("graft", source, *DONOR_DLL, *where), 6)
        assert "4 GiB" in done.stderr
        assert "--extracted" in done.stderr
    assert list(tmp_path.iterdir()) == [source]
    after = source.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (before.st_mtime_ns, before.st_size, before.st_ino)


def test_program_near_4_gib_with_room_is_edited_in_place(run: Run, tmp_path: Path) -> None:
    dll = demo_member(DLL)
    source, out = tmp_path / "a.llamafile", tmp_path / "b.llamafile"
    sparse(source, Entry(DLL, dll), (4 << 30) - 70_000, demo_member(GGUF), prefix=APE_MAGIC, room=0x40000)
    done = ok(run("graft", source, *DONOR_DLL, "-o", out))
    assert f"{DLL}  in place" in done.stdout
    assert out.stat().st_size == source.stat().st_size
    with zipfile.ZipFile(out) as archive:
        assert len(archive.read(DLL)) > len(dll)  # zipfile checks its sum
    assert out.stat().st_blocks * 512 < 16 << 20


def test_plain_zip_may_pass_4_gib(run: Run, so: bytes, tmp_path: Path) -> None:
    source, out = tmp_path / "a.zip", tmp_path / "b.zip"
    sparse(source, Entry("lib.so", so), (4 << 30) - 70_000, demo_member(GGUF))
    ok(run("graft", source, *DONOR_SO, "-o", out))
    assert out.stat().st_size > 4 << 30
    with zipfile.ZipFile(out) as archive:
        assert archive.getinfo("lib.so").header_offset >= source.stat().st_size
        assert len(archive.read("lib.so")) > len(so)
        assert archive.getinfo("big.gguf").header_offset == 0
    ok(run("undo", out))
    assert out.stat().st_size == source.stat().st_size


# --- llamafile versions


def small_llamafile(version: str | None) -> bytes:
    body = APE_MAGIC + bytes(2000) + (f"llamafile v{version}\0".encode() if version else b"") + bytes(3000)
    members = [Entry(DLL, demo_member(DLL), align=0x10000), Entry("x.gguf", b"GGUF" + bytes(100), align=0x4000), Entry(".args", b"-m\n")]
    return build(members, prefix=body)


@pytest.mark.parametrize(
    ("version", "folder", "words"),
    [
        ("0.8.1", ".llamafile", "delete that once"),
        ("0.8.4", ".llamafile", "delete that once"),
        ("0.8.13", ".llamafile/v/0.8.13", "delete that once"),
        ("0.9.3", ".llamafile/v/0.9.3", "delete that once"),
        ("0.10.0", ".llamafile/v/0.10.0", "nothing to do"),
    ],
)
def test_notes_and_extracted_copy(version: str, folder: str, words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    source, out = tmp_path / "a.llamafile", tmp_path / "b.llamafile"
    source.write_bytes(small_llamafile(version))
    done = ok(run("graft", source, *DONOR_DLL, "-o", out))
    (note,) = [line for line in done.stdout.splitlines() if line.startswith("note: llamafile")]
    assert note.startswith(f"note: llamafile {version}: ")
    assert words in note
    if words != "nothing to do":
        assert f"~/{folder}/{DLL} " in note
    assert json.loads(ok(run("graft", source, *DONOR_DLL, "--dry-run", "--format", "json")).stdout)["schema"] == "fatpatch.graft/1"
    others_kept(source.read_bytes(), out.read_bytes(), {DLL})

    refused = ok(run("graft", source, *DONOR_DLL, "--extracted"), 6)
    if words == "nothing to do":
        assert "renews its extracted copy at every start" in refused.stderr
        return
    assert "no extracted copy" in refused.stderr
    copy = home / folder / DLL
    copy.parent.mkdir(parents=True)
    copy.write_bytes(demo_member(DLL))
    stranger = home / (".llamafile/v/0.8.9" if folder == ".llamafile" else ".llamafile") / DLL
    stranger.parent.mkdir(parents=True, exist_ok=True)
    stranger.write_bytes(demo_member(DLL))
    old = source.read_bytes()
    ok(run("graft", source, *DONOR_DLL, "--extracted"))
    assert source.read_bytes() == old
    assert "sm_61" in targets(run, copy)[""]
    assert "sm_61" not in targets(run, stranger)[""]
    ok(run("undo", copy))
    assert copy.read_bytes() == demo_member(DLL)
    assert sorted(path.name for path in copy.parent.iterdir() if path.is_file()) == [DLL]


def test_note_of_unknown_version_names_both_places(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "a.llamafile"
    source.write_bytes(small_llamafile(None))
    done = ok(run("graft", source, *DONOR_DLL, "--dry-run"))
    assert f"~/.llamafile/{DLL} or ~/.llamafile/v/VERSION/{DLL}" in done.stdout


def test_members_that_no_text_names_twice(run: Run, so: bytes, tmp_path: Path) -> None:
    """A stale member that the directory does not list any more is neither shown nor brought back."""
    source = tmp_path / "a.zip"
    stale = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 8, 0, 0, 1, 4, 4, 5, 0) + b"stale" + deflated(b"gone")
    source.write_bytes(build([Entry("lib.so", so)], prefix=stale))
    new = graft_both(run, source, tmp_path / "work", *DONOR_SO)
    assert list(rows(new)) == ["lib.so"]
