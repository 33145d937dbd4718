"""Images taken out of linked files: loaders, binutils, LIEF, patchelf and zipfile look at what is left; whom it would break is refused."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import struct
import subprocess
import time
import zipfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import jsonschema
import lief
import pytest
from builders import bundle, elf
from builders.fatbin import PTX, container, entry
from conftest import ROOT, SAMPLES
from edit.elf_builder import (
    AARCH64,
    X86_64,
    BuildError,
    Host,
    build,
    build_loader,
    cubin,
    entries_at_run_time,
    fatbins_in_memory,
    fatpatch,
    segments_of,
    stored_entries,
    summed,
)
from edit.pe_variants import checksum, signed, with_debug
from edit.test_elf import HOSTS, found_at_run_time, tool
from edit.test_pe import Pe
from elftools.elf.elffile import ELFFile

SCHEMA = json.loads((ROOT / "fatpatch/edit/edit-1.schema.json").read_text())


def two_archs(samples: Path) -> tuple[bytes, ...]:
    """Three modules that hold sm_61, sm_70 and sm_75 each, of 20 kB an image."""

    def of(data: bytes, arch: int) -> bytes:
        return entry(data, kind=2, arch=arch, major=1, minor=7)

    images = [(arch, cubin(samples, arch)) for arch in (61, 70, 75)]
    other = [(arch, data.replace(b"rms_norm_f32", b"rms_norm_f64")) for arch, data in images]
    third = [(arch, data.replace(b"quantize_q8_1", b"quantize_q8_7")) for arch, data in images]
    return tuple(container(*(of(data, arch) for arch, data in each)) for each in (images, other, third))


def pruned(*arguments: object, code: int = 0) -> str:
    answer = fatpatch("prune", *arguments)
    assert answer.code == code, answer
    if code == 0:
        found = re.search(r"(\d+) of (\d+) checks passed", answer.out)
        assert found is not None
        assert found[1] == found[2]
    return answer.out + answer.err


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.name)
def test_compacted_hosts(host: Host, tmp_path: Path) -> None:
    """Every kind of host: smaller by what went, its wrappers lead to the rest, it runs as before, and undo gives the old bytes."""
    modules = two_archs(SAMPLES)
    try:
        before = build(host, tmp_path, modules)
    except BuildError as error:
        pytest.skip(str(error))
    after = tmp_path / "after"
    answer = fatpatch("prune", before, "--drop", "sm_61", "--drop", "sm_75", "--compact", "-o", after)
    if not host.sections:
        assert answer.code == 5
        assert "has no section headers" in answer.err
        assert not after.exists()
        pruned(before, "--drop", "sm_61,sm_75", "-o", after)  # in place it can be done
    else:
        assert answer.code == 0, answer
    data = after.read_bytes()
    wanted = [[item for item in stored_entries(modules[index]) if item.arch == 70] for index in range(host.modules)]
    assert fatbins_in_memory(data) == wanted
    if host.sections:
        gone = sum(len(item.data) + 64 for index in range(host.modules) for item in stored_entries(modules[index]) if item.arch != 70)
        page = 0x10000 if "aarch64" in host.name else 0x1000
        shrunk = before.stat().st_size - len(data)
        assert gone - page - 64 <= shrunk <= gone + page, answer.out
        assert len(segments_of(data)) == len(segments_of(before.read_bytes()))
        (tmp_path / "loader").mkdir()
        found = found_at_run_time(host, after, build_loader(tmp_path / "loader"))
        assert found == [item for number, each in enumerate(wanted) for item in summed(number, each)]
    before_sum = sha256(before)
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == before_sum


@pytest.mark.parametrize(
    "change",
    [("strip",), ("strip", "-g"), ("patchelf", "--set-rpath", "$ORIGIN/elsewhere"), ("objcopy", "--add-section", ".more=/etc/hostname")],
    ids=lambda change: change[0] + change[-1][:6],
)
@pytest.mark.parametrize("name", ["shared", "shared-no-build-id", "pie", "fixed"])
def test_tools_take_a_compacted_file(name: str, change: tuple[str, ...], tmp_path: Path) -> None:
    host = next(each for each in HOSTS if each.name == name)
    modules = two_archs(SAMPLES)
    before = build(host._replace(options=(*host.options, "-g")), tmp_path, modules)
    after = tmp_path / "after"
    pruned(before, "--keep", "sm_70", "--compact", "-o", after)
    for command in (["readelf", "-aW"], ["objdump", "-x"], ["objdump", "-d"], ["nm"]):
        assert tool(*command, after).stderr == tool(*command, before).stderr
    assert tool("readelf", "--debug-dump=info", after).stdout == tool("readelf", "--debug-dump=info", before).stdout.replace(
        "host.so", "after"
    )
    binary = lief.parse(str(after))
    symbols = {symbol.name: symbol.value for symbol in binary.symbols if symbol.name.startswith("fatbin")}
    section = next(each for each in ELFFile(BytesIO(after.read_bytes())).iter_sections() if each.name == ".nv_fatbin")
    assert symbols["fatbin0"] == section["sh_addr"]
    assert tool(*change, after).returncode == 0
    wanted = [item for item in stored_entries(modules[0]) if item.arch == 70]
    assert entries_at_run_time(host, after, build_loader(tmp_path)) == summed(0, wanted)


def test_what_lies_behind_the_program_moves_along(tmp_path: Path) -> None:
    before = build(Host("program", program=True), tmp_path, two_archs(SAMPLES))
    with before.open("ab") as stream:
        stream.write(b"an archive of its own, found from the end" * 100)
    after = tmp_path / "after"
    pruned(before, "--keep", "sm_70", "--compact", "-o", after)
    assert after.read_bytes()[-4100:] == before.read_bytes()[-4100:]
    assert subprocess.run([after], capture_output=True, check=False).returncode == 0
    with zipfile.ZipFile(before, "a") as archive:
        archive.writestr("x", b"y")
    assert "zip archive lies behind" in pruned(before, "--keep", "sm_70", "--compact", "-o", tmp_path / "other", code=5)


def test_a_second_reference_is_refused(tmp_path: Path) -> None:
    """A pointer into the second fatbin, which would have to move, that is no wrapper's."""
    extra = '.section .data,"aw",@progbits\n.balign 8\nsecond: .quad fatbin1 + 16\n'
    before = build(Host("shared", modules=3, extra=extra), tmp_path, two_archs(SAMPLES))
    assert "leads into the payload" in pruned(before, "--keep", "sm_70", "--compact", "-o", tmp_path / "after", code=6)
    assert not (tmp_path / "after").exists()
    pruned(before, "--keep", "sm_70", "-o", tmp_path / "after")


def test_bytes_that_belong_to_no_fatbin_are_refused(tmp_path: Path) -> None:
    extra = '.section .nv_fatbin,"a",@progbits\n.ascii "something else"\n'
    before = build(Host("shared", extra=extra), tmp_path, two_archs(SAMPLES))
    assert "belong to none" in pruned(before, "--keep", "sm_70", "--compact", "-o", tmp_path / "after", code=6)


def test_zeros_take_no_room(tmp_path: Path) -> None:
    before = build(Host("shared"), tmp_path, two_archs(SAMPLES))
    after = tmp_path / "after"
    told = pruned(before, "--keep", "sm_70", "-o", after)
    assert "are zeros now" in told
    assert after.stat().st_size == before.stat().st_size
    if os.statvfs(tmp_path).f_bsize == 4096:
        assert after.stat().st_blocks < before.stat().st_blocks


def test_without_a_record(tmp_path: Path) -> None:
    path = build(Host("shared"), tmp_path, two_archs(SAMPLES))
    pruned(path, "--drop", "sm_61", "--in-place", "--compact")
    assert Path(f"{path}.fatpatch-undo").exists()
    assert "no undo record was written" in pruned(path, "--drop", "sm_75", "--in-place", "--compact", "--no-undo")
    assert not Path(f"{path}.fatpatch-undo").exists()
    assert fatpatch("undo", path).code == 6


def test_several_edits_are_taken_back(tmp_path: Path) -> None:
    path = build(Host("shared", modules=3), tmp_path, two_archs(SAMPLES))
    digests = [sha256(path)]
    for step in (
        ("prune", path, "--drop", "sm_61", "--compact", "--in-place"),
        ("recompress", path, "--codec", "zstd", "--level", "19", "--compact", "--in-place"),
        ("graft", path, "--from", SAMPLES / "donor.so", "--target", "sm_61", "--in-place"),
        ("prune", path, "--keep", "sm_70", "--in-place"),
    ):
        answer = fatpatch(*step)
        assert answer.code == 0, answer
        digests.append(sha256(path))
    assert len(set(digests)) == len(digests)
    for digest in reversed(digests[:-1]):
        assert fatpatch("undo", path, "--last").code == 0
        assert sha256(path) == digest


# Whom it would break


def host_of(folder: Path, *modules: Sequence[bytes]) -> Path:
    return build(Host("shared", modules=len(modules)), folder, tuple(container(*each) for each in modules))


def image(arch: int, name: bytes = b"rms_norm_f32") -> bytes:
    source = min((61, 70, 75), key=lambda each: abs(each - arch))
    return entry(cubin(SAMPLES, source).replace(b"rms_norm_f32", name), kind=2, arch=arch, major=1, minor=7)


def text(arch: int) -> bytes:
    """PTX whose kernel stores something: one that does nothing is judged by what stands beside it."""
    stores = PTX.replace(b"ret;", b".reg .b64 %rd<2>;\nld.param.u64 %rd1, [k_param_0];\nst.global.u64 [%rd1], %rd1;\nret;")
    return entry(stores.replace(b"sm_75", f"sm_{arch}".encode()), kind=1, arch=arch, options=b"")


def test_a_kept_gpu_never_loses_a_module(tmp_path: Path) -> None:
    """As in cuBLAS: one module has its own sm_75, another serves 7.5 by sm_70."""
    path = host_of(tmp_path, (image(70), image(75)), (image(70, b"rms_norm_f64"), image(80)))
    told = pruned(path, "--drop", "sm_70", "-o", tmp_path / "after", code=6)
    assert "a GPU of sm_75 loads sm_70 here" in told
    assert "fatbin[1]" in told
    assert "keep sm_70" in told
    assert not (tmp_path / "after").exists()
    told = pruned(path, "--drop", "sm_70", "--force", "-o", tmp_path / "after")
    kept = [[each.arch for each in module] for module in fatbins_in_memory((tmp_path / "after").read_bytes())]
    assert kept == [[75], [80]]


def test_for_keeps_what_each_gpu_loads(tmp_path: Path) -> None:
    """Its own code, a lower minor, PTX: module by module."""
    path = host_of(
        tmp_path,
        (image(80), image(86), image(90)),
        (image(80, b"rms_norm_f64"), image(90, b"rms_norm_f64"), text(90)),
        (image(70), text(52), text(80)),
    )
    told = pruned(path, "--for", "RTX 3060", "-o", tmp_path / "after")
    kept = [[(each.kind, each.arch) for each in module] for module in fatbins_in_memory((tmp_path / "after").read_bytes())]
    assert kept == [[(2, 86)], [(2, 80)], [(1, 80)]]
    assert "no longer served" in told
    pruned(path, "--for", "RTX 3060", "--for", "H100", "-o", tmp_path / "both")
    kept = [[(each.kind, each.arch) for each in module] for module in fatbins_in_memory((tmp_path / "both").read_bytes())]
    assert kept == [[(2, 86), (2, 90)], [(2, 80), (2, 90)], [(1, 80)]]
    assert "nothing in the file runs on" in pruned(path, "--for", "GTX 780", "-o", tmp_path / "x", code=6)
    for gpu in ("RTX 3060", "H100"):
        loaded = []
        for each in (path, tmp_path / "both"):
            found = json.loads(fatpatch("doctor", each, "--gpu", gpu, "--format", "json").out)["files"][0]
            loaded.append([(row["target"], row["verdict"]) for row in found["modules"]])
        assert loaded[0] == loaded[1]


def test_wrong_words(tmp_path: Path) -> None:
    path = host_of(tmp_path, (image(70), image(75)))
    assert "nothing in the file is for 'sm_99'" in pruned(path, "--drop", "sm_99", "-o", tmp_path / "x", code=6)
    assert "its targets are sm_70, sm_75" in pruned(path, "--keep", "sm_99", "-o", tmp_path / "x", code=6)
    for arguments in ((), ("--keep", "sm_70", "--drop", "sm_75"), ("--keep", ","), ("--for", "GTX 99999")):
        pruned(path, *arguments, "-o", tmp_path / "x", code=2)
    pruned(path, "--keep", "sm_70", code=2)
    pruned(path, "--keep", "sm_70", "-o", path, code=2)
    assert "nothing to do" in fatpatch("prune", path, "--keep", "sm_7*", "-o", tmp_path / "x").out
    assert sha256(tmp_path / "x") == sha256(path)  # whoever asked for a file is given one
    answer = fatpatch("prune", path, "--keep", "sm_7*", "-o", tmp_path / "x", "--overwrite", "--format", "json")
    assert json.loads(answer.out)["output"] == str(tmp_path / "x")
    assert "nothing would be left" in pruned(path, "--drop", "sm_7*", "-o", tmp_path / "y", code=6)
    pruned(path, "--drop", "sm_7*", "-o", tmp_path / "y", "--force")


def test_some_modules_alone(tmp_path: Path) -> None:
    """What is lost is looked for in the whole file, also when only some modules are to change."""
    path = host_of(tmp_path, (image(75), image(86)), (image(75, b"rms_norm_f64"), image(86, b"rms_norm_f64")))
    told = pruned(path, "--module", "fatbin[0]", "--keep", "sm_75", "-o", tmp_path / "x", code=6)
    assert "sm_86 loads sm_86 here" in told


def test_pointers_into_what_gets_shorter(tmp_path: Path) -> None:
    """The first fatbin stays where it is; a pointer into its middle, and code that takes its end, would read something else."""
    extra = '.section .data,"aw",@progbits\n.balign 8\nmiddle: .quad fatbin0 + 0x8000\n'
    before = build(Host("shared", extra=extra), tmp_path, two_archs(SAMPLES))
    assert "leads into the payload" in pruned(before, "--keep", "sm_61", "--compact", "-o", tmp_path / "x", code=6)


@pytest.mark.parametrize(
    ("compiler", "code"),
    [
        (X86_64, "leaq fatbin1(%rip), %rax"),
        (AARCH64, "adrp x7, fatbin1\nmov x0, #1\nadd x1, x7, :lo12:fatbin1"),
        (AARCH64, "adrp x7, fatbin1 + 0x9123\nadd x7, x7, :lo12:fatbin1 + 0x9123"),
        (AARCH64, "adrp x7, fatbin1\nadd x1, x7, #0\nadd x2, x7, :lo12:fatbin1"),
        (AARCH64, "adr x30, fatbin1"),
    ],
)
def test_code_that_takes_an_address(compiler: str, code: str, tmp_path: Path) -> None:
    extra = f'.section .text,"ax",@progbits\n.globl taker\ntaker: {code}\nret\n'
    try:
        before = build(Host("shared", compiler=compiler, modules=3, extra=extra), tmp_path, two_archs(SAMPLES))
    except BuildError as error:
        pytest.skip(str(error))
    assert "leads into the payload" in pruned(before, "--keep", "sm_61", "--compact", "-o", tmp_path / "x", code=6)


def test_an_aarch64_register_made_anew(tmp_path: Path) -> None:
    """The page of the first adrp and the offset of the second are no address."""
    code = "adrp x0, fatbin1\nmov x1, #16\nadrp x0, here\nadd x0, x0, :lo12:fatbin1"
    extra = f'.section .text,"ax",@progbits\n.globl taker\ntaker: nop\nhere: {code}\nret\n'
    try:
        before = build(Host("shared", compiler=AARCH64, modules=3, extra=extra), tmp_path, two_archs(SAMPLES))
    except BuildError as error:
        pytest.skip(str(error))
    pruned(before, "--keep", "sm_61", "--compact", "-o", tmp_path / "x")


def test_code_sections_that_claim_too_much(tmp_path: Path) -> None:
    """One that claims to be of 8 EB, and a thousand that are the whole file: told at once, not searched."""
    path = build(Host("shared", modules=3), tmp_path, two_archs(SAMPLES))
    data = bytearray(path.read_bytes())
    (shoff,), (count,) = struct.unpack_from("<Q", data, 40), struct.unpack_from("<H", data, 60)
    rows = [shoff + 64 * index for index in range(count)]
    code = [at for at in rows if struct.unpack_from("<IQ", data, at + 4) == (1, 6)]
    assert code
    struct.pack_into("<Q", data, code[0] + 32, 1 << 63)
    path.write_bytes(data)
    began = time.monotonic()
    assert "code and data overlap or lie outside the file" in pruned(path, "--keep", "sm_70", "--compact", "-o", tmp_path / "x", code=4)
    struct.pack_into("<Q", data, code[0] + 24, 0)
    struct.pack_into("<Q", data, code[0] + 32, len(data))
    row = bytes(data[code[0] : code[0] + 64])
    struct.pack_into("<Q", data, 40, len(data))
    struct.pack_into("<H", data, 60, count + 1000)
    path.write_bytes(data + data[shoff : shoff + 64 * count] + row * 1000)
    assert "code and data overlap or lie outside the file" in pruned(path, "--keep", "sm_70", "--compact", "-o", tmp_path / "x", code=4)
    assert time.monotonic() - began < 20


def test_data_segments_that_claim_too_much(tmp_path: Path) -> None:
    """Pointers of a program at a fixed address are looked for in what the file has of a segment."""
    host = next(each for each in HOSTS if each.name == "fixed")
    there, given = container(entry(cubin(SAMPLES, 70), kind=2, arch=70)), tmp_path / "given.cubin"
    path = build(host, tmp_path, (there,))
    given.write_bytes(cubin(SAMPLES, 61))
    data = bytearray(path.read_bytes())
    (phoff,) = struct.unpack_from("<Q", data, 32)
    last = max(index for index, each in enumerate(segments_of(bytes(data))) if each.type == 1)
    struct.pack_into("<QQ", data, phoff + 56 * last + 32, 1 << 46, 1 << 46)
    path.write_bytes(data)
    began = time.monotonic()
    answer = fatpatch("graft", path, "--cubin", given, "--dry-run")
    assert answer.code in (4, 6), answer
    assert "shares 0" not in answer.err
    assert time.monotonic() - began < 20


def test_alignment_of_a_whole_program(tmp_path: Path) -> None:
    """A segment that wants more than a page makes the loader place all of them so, and must go on doing it."""
    extra = '.section .aligned,"aw",@progbits\n.balign 65536\nbig: .quad 1\n'
    for host in (Host("shared", extra=extra), Host("pie", ("-pie", "-fPIE"), program=True, extra=extra)):
        before = build(host, tmp_path / host.name, two_archs(SAMPLES))
        after = tmp_path / "after"
        pruned(before, "--keep", "sm_70", "--compact", "-o", after, "--overwrite")
        strictest = [max(each.alignment for each in segments_of(path.read_bytes()) if each.type == 1) for path in (before, after)]
        assert strictest[0] == strictest[1] == 65536
        (tmp_path / host.name / "loader").mkdir()
        assert entries_at_run_time(host, after, build_loader(tmp_path / host.name / "loader"))


def test_notes_of_others_stay(tmp_path: Path) -> None:
    extra = '.section .note.own,"a",@note\n.balign 4\n.long 4, 4, 0x1234\n.asciz "OWN"\n.long 7\n'
    before = build(Host("shared", notes=True, extra=extra), tmp_path, two_archs(SAMPLES))
    after = tmp_path / "after"
    pruned(before, "--keep", "sm_70", "--compact", "-o", after)
    data = after.read_bytes()
    assert any(b"OWN" in data[each.offset : each.offset + each.file_size] for each in segments_of(data) if each.type == 4)


def test_a_patched_file_can_be_compacted(tmp_path: Path) -> None:
    """patchelf puts the section headers into a segment of its own."""
    before = build(Host("shared"), tmp_path, two_archs(SAMPLES))
    assert tool("patchelf", "--set-soname", "libother-abcdef.so", before).returncode == 0
    pruned(before, "--keep", "sm_70", "--compact", "-o", tmp_path / "after")


def test_absurd_segments_end_at_once(tmp_path: Path) -> None:
    before = build(Host("shared"), tmp_path, two_archs(SAMPLES))
    data = bytearray(before.read_bytes())
    index = next(index for index, each in reversed(list(enumerate(segments_of(bytes(data))))) if each.type == 1)
    at = int.from_bytes(data[32:40], "little") + index * 56
    data[at + 32 : at + 48] = (1 << 46).to_bytes(8, "little") * 2
    before.write_bytes(data)
    assert "ends outside the file" in pruned(before, "--keep", "sm_70", "--compact", "-o", tmp_path / "x", code=4)


def test_many_modules(tmp_path: Path) -> None:
    """Thousands take no longer than they must."""
    both = container(entry(b"x" * 64, kind=4, arch=75), entry(b"y" * 64, kind=4, arch=86))
    path = build(Host("shared", modules=3000), tmp_path, tuple([both] * 3000))
    began = time.process_time()
    pruned(path, "--keep", "sm_86", "--compact", "-o", tmp_path / "after")
    assert time.process_time() - began < 10


def test_a_zip_behind_a_dll(tmp_path: Path) -> None:
    with zipfile.ZipFile(SAMPLES / "demo.llamafile") as archive:
        library = archive.read("ggml-cuda.dll")
    whole = BytesIO(library)
    whole.seek(0, 2)
    with zipfile.ZipFile(whole, "a") as archive:  # offsets count from the start of the file
        archive.writestr("x", b"y" * 100)
    path = tmp_path / "x.dll"
    path.write_bytes(whole.getvalue())
    assert "zip archive lies behind" in pruned(path, "--keep", "sm_70", "--compact", "-o", tmp_path / "y.dll", code=5)


def test_concatenated_entries_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.fatbin"
    path.write_bytes((SAMPLES / "concatenated.fatbin").read_bytes())
    answer = fatpatch("prune", path, "--drop", "sm_75", "-o", tmp_path / "y.fatbin", "--format", "json")
    document = json.loads(answer.out)
    assert any("'fatpatch expand' parts them" in note for note in document["notes"])
    assert (tmp_path / "y.fatbin").read_bytes() == path.read_bytes()
    assert fatpatch("expand", path, "-o", tmp_path / "plain.fatbin").code == 0
    pruned(tmp_path / "plain.fatbin", "--drop", "sm_75", "--in-place")
    assert 75 not in [each.arch for each in stored_entries((tmp_path / "plain.fatbin").read_bytes())]


def test_json_follows_its_schema(tmp_path: Path) -> None:
    path = host_of(tmp_path, (image(70), image(75)))
    for arguments in (
        ("prune", path, "--drop", "sm_75", "--dry-run"),
        ("prune", path, "--drop", "sm_75", "--compact", "-o", tmp_path / "a"),
        ("recompress", path, "--codec", "lz4", "--dry-run"),
        ("expand", SAMPLES / "concatenated.fatbin", "--dry-run"),
        ("expand", path, "--dry-run"),
    ):
        answer = fatpatch(*arguments, "--format", "json")
        assert answer.code == 0, answer
        jsonschema.validate(json.loads(answer.out), SCHEMA)


# AMD


def test_amd_objects(tmp_path: Path) -> None:
    objects = [(target, bundle.code_object(target=target)) for target in ("gfx906:xnack-", "gfx906:xnack+", "gfx1030", "gfx1100")]
    path = tmp_path / "lib.so"
    for made in (bundle.plain(objects), bundle.ccob(bundle.plain(objects), 2)):
        path.write_bytes(elf.shared_object([(".hip_fatbin", made)]))
        pruned(path, "--for", "gfx906", "-o", tmp_path / "after", "--overwrite")
        rows = json.loads(fatpatch("inspect", tmp_path / "after", "--format", "json").out)["files"][0]["payloads"][0]["images"]
        assert [row["target"] for row in rows if row["kind"] != "host"] == ["gfx906:xnack-", "gfx906:xnack+"]  # a user may switch XNACK on
        pruned(path, "--keep", "gfx1030", "-o", tmp_path / "after", "--overwrite")
        rows = json.loads(fatpatch("inspect", tmp_path / "after", "--format", "json").out)["files"][0]["payloads"][0]["images"]
        assert [row["target"] for row in rows if row["kind"] != "host"] == ["gfx1030"]
        assert fatpatch("undo", tmp_path / "after").code == 0
        assert sha256(tmp_path / "after") == sha256(path)


# PE


@pytest.mark.parametrize("variant", [bytes, signed], ids=["plain", "signed"])
def test_compacted_dll(variant: type[bytes], tmp_path: Path) -> None:
    path = tmp_path / "x.dll"
    with zipfile.ZipFile(SAMPLES / "demo.llamafile") as archive:
        path.write_bytes(variant(archive.read("ggml-cuda.dll")))
    after = tmp_path / "after.dll"
    options = ("--drop-signature",) if variant is signed else ()
    told = pruned(path, "--keep", "sm_70", "--compact", "-o", after, *options)
    old, new = Pe(path.read_bytes()), Pe(after.read_bytes())
    assert [row[:3] for row in old.sections] == [row[:3] for row in new.sections]
    assert [[each.arch for each in module] for module in new.fatbins()] == [[70]]
    assert new.image_size == old.image_size
    assert new.checksum in (0, checksum(after.read_bytes()))
    assert len(new.data) < len(old.data) - 20_000, told
    first, second = lief.parse(str(path)), lief.parse(str(after))
    assert [section.name for section in second.sections] == [section.name for section in first.sections]
    dump = tool("objdump", "-p", after)
    assert dump.returncode == 0
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == sha256(path)


def test_the_debug_directory_of_a_compacted_dll(tmp_path: Path) -> None:
    """It names its data by address, which stays, and by file offset, which does not."""
    path, after = tmp_path / "x.dll", tmp_path / "after.dll"
    with zipfile.ZipFile(SAMPLES / "demo.llamafile") as archive:
        path.write_bytes(signed(with_debug(archive.read("ggml-cuda.dll"))))
    pruned(path, "--keep", "sm_70", "--compact", "--drop-signature", "-o", after)
    found = []
    for file in (path, after):
        binary = lief.parse(str(file))  # what it gives lives no longer than it does
        (entry,) = binary.debug
        data = file.read_bytes()[entry.pointerto_rawdata :][: entry.sizeof_data]
        found.append((entry.addressof_rawdata, entry.filename, data))
        assert data.startswith(b"RSDS")
        assert "ggml-cuda.pdb" in tool("objdump", "-p", file).stdout
    assert found[0] == found[1]
    assert after.stat().st_size < path.stat().st_size - 20_000


# Archives


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_archives_are_written_anew(method: int, tmp_path: Path) -> None:
    library = build(Host("shared", modules=2), tmp_path, two_archs(SAMPLES)).read_bytes()
    path = tmp_path / "x-1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.comment = b"a comment"
        archive.writestr("x/before.txt", "before" * 1000)
        archive.writestr("x/lib.so", library)
        archive.writestr("x/after.bin", bytes(range(256)) * 100)
        archive.writestr("x-1.0.dist-info/RECORD", "x/lib.so,sha256=x,1\nx-1.0.dist-info/RECORD,,\n")
    after = tmp_path / "after.whl"
    assert "unpacked, 1 member will be as large as before" in pruned(path, "--keep", "sm_70", "--dry-run")
    pruned(path, "--keep", "sm_70", "--compact", "-o", after)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(after) as new:
        assert new.testzip() is None
        assert new.namelist() == old.namelist()
        assert new.comment == b"a comment"
        for name in ("x/before.txt", "x/after.bin"):
            assert new.read(name) == old.read(name)
        inside = new.read("x/lib.so")
        rows = {row[0]: row for row in csv.reader(new.read("x-1.0.dist-info/RECORD").decode().splitlines())}
        assert int(rows["x/lib.so"][2]) == len(inside)
    assert [[each.arch for each in module] for module in fatbins_in_memory(inside)] == [[70], [70]]
    assert path.stat().st_size - after.stat().st_size > 10_000
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == sha256(path)


def test_llamafile_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "demo.llamafile"
    path.write_bytes((SAMPLES / "demo.llamafile").read_bytes())
    path.chmod(0o755)
    after = tmp_path / "after.llamafile"
    pruned(path, "--drop", "sm_75", "--compact", "-o", after)
    assert after.stat().st_size < path.stat().st_size - 10_000
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(after) as new:
        assert new.testzip() is None
        assert new.namelist() == old.namelist()
        for first, second in zip(old.infolist(), new.infolist(), strict=True):
            if not first.filename.startswith("ggml-cuda"):
                assert old.read(first) == new.read(second)
            at = [int.from_bytes(data[info.header_offset + 26 :][:2], "little") + int.from_bytes(data[info.header_offset + 28 :][:2], "little") + 30 + info.header_offset for data, info in ((path.read_bytes(), first), (after.read_bytes(), second))]  # fmt: skip
            for alignment in (0x1000, 0x4000, 0x10000):
                if first.compress_type == 0 and at[0] % alignment == 0:
                    assert at[1] % alignment == 0
    assert (
        after.read_bytes()[: min(info.header_offset for info in old.infolist())]
        == path.read_bytes()[: min(info.header_offset for info in old.infolist())]
    )
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == sha256(path)
