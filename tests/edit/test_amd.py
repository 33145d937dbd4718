"""AMD code objects grafted and retagged: what a runtime gets afterwards, byte for byte; undo; archives; every refusal."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import bundle
from conftest import ROOT, SAMPLES
from edit import hip, zips
from edit.pe_variants import without_header_room
from oracle import llvm

import fatpatch
from fatpatch import EditError, FatpatchError, FormatError
from fatpatch.commands import run as run_command
from fatpatch.edit.graft.retag import retagged
from fatpatch.gpucode.code_object.read import read_code_object
from fatpatch.scan.walk import inspected

SO, DLL, OBJECT = "libhipdemo.so", "hipdemo.dll", SAMPLES / "hipdemo.gfx1031.hsaco"
ID = "hipv4-amdgcn-amd-amdhsa--"
SCHEMA = json.loads((ROOT / "fatpatch/edit/graft/graft-1.schema.json").read_text())
Done = subprocess.CompletedProcess


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the samples."""
    for name in (SO, DLL):
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(file: str | Path, kind: Any = EditError, **options: Any) -> FatpatchError:
    """The error of a graft."""
    with pytest.raises(kind) as caught:
        fatpatch.graft(file, **options)
    error: FatpatchError = caught.value
    return error


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done[str]]:
    """``fatpatch ARGS`` in that folder, in this process."""

    def call(*arguments: object) -> Done[str]:
        monkeypatch.setattr(sys, "argv", ["fatpatch", *map(str, arguments)])
        return Done(arguments, run_command(), *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    return hip.build_probe(tmp_path_factory.mktemp("probe"))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


STEPS = [
    (("--hsaco", OBJECT), {"gfx1031": 1}),
    (("--retag", "gfx1030:gfx1031"), {"gfx1031": 2}),
    (
        ("--retag", "gfx1030:gfx1031", "--retag", "gfx1030:gfx1032", "--retag", "gfx1030:gfx1036"),
        {"gfx1031": 2, "gfx1032": 2, "gfx1036": 2},
    ),
    (("--retag", "gfx1100:gfx1102", "--force"), {"gfx1102": 2}),
    (("--retag", "gfx1030:gfx1033", "--module", "bundle[1]"), {"gfx1033": 1}),
]


@pytest.mark.parametrize(("options", "added"), STEPS, ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, tuple) else "")
@pytest.mark.parametrize("name", [SO, DLL])
def test_what_a_runtime_gets(
    name: str, options: tuple[object, ...], added: dict[str, int], run: Callable[..., Done[str]], probe: Path, tmp_path: Path
) -> None:
    original = (tmp_path / name).read_bytes()

    def seen(path: str) -> list[hip.Objects]:
        return hip.loaded(probe, tmp_path / path) if name == SO else hip.mapped((tmp_path / path).read_bytes())

    before = seen(name)
    done = run("graft", name, *options, "-o", f"new-{name}")
    assert (done.returncode, done.stderr) == (0, "")
    after = seen(f"new-{name}")
    assert [{key: value for key, value in each.items() if key in old} for each, old in zip(after, before, strict=True)] == before
    counts: dict[str, int] = {}
    for each, old in zip(after, before, strict=True):
        for key in each.keys() - old.keys():
            counts[key.removeprefix(ID)] = counts.get(key.removeprefix(ID), 0) + 1
    assert counts == added
    assert run("verify", f"new-{name}").returncode == 0
    assert run("undo", f"new-{name}").returncode == 0
    assert (tmp_path / f"new-{name}").read_bytes() == original


def test_the_given_object_arrives_whole(run: Callable[..., Done[str]], probe: Path, tmp_path: Path) -> None:
    assert run("graft", SO, "--hsaco", OBJECT, "-o", "new.so").returncode == 0
    assert hip.loaded(probe, tmp_path / "new.so")[0][ID + "gfx1031"] == sha(OBJECT.read_bytes())


def test_two_grafts_in_a_row_and_both_undone(run: Callable[..., Done[str]], probe: Path, tmp_path: Path) -> None:
    original = (tmp_path / SO).read_bytes()
    for device in ("gfx1031", "gfx1032", "gfx1034"):
        done = run("graft", SO, "--retag", f"gfx1030:{device}", "--in-place")
        assert (done.returncode, done.stderr) == (0, "")
    assert "last segment grown" in done.stdout
    found = hip.loaded(probe, tmp_path / SO)
    assert [sorted(key.removeprefix(ID) for key in each) for each in found] == [
        ["gfx1030", "gfx1031", "gfx1032", "gfx1034", "gfx1100", "gfx906"]
    ] * 2
    assert "reverted 3 edits" in run("undo", SO).stdout
    assert (tmp_path / SO).read_bytes() == original


def test_windows_tactics(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    more = [word for device in range(31, 37) for word in ("--retag", f"gfx1030:gfx10{device}")]
    for base, tactic in ((bytes, "new section .hip_fat"), (without_header_room, "last section grown")):
        (tmp_path / DLL).write_bytes(base((SAMPLES / DLL).read_bytes()))
        done = run("graft", DLL, "--hsaco", bulky(tmp_path, "gfx1201"), *more, "-o", "new.dll", "--overwrite")
        assert (done.returncode, done.stderr) == (0, "")
        assert tactic in done.stdout
        found = hip.mapped((tmp_path / "new.dll").read_bytes())
        assert [len(each) for each in found] == [10, 9]


def bulky(folder: Path, target: str) -> Path:
    """The object of the samples for another target, with a tail that does not compress: its bundle outgrows every gap."""
    data = retagged(OBJECT.read_bytes(), target, "")
    noise = b"".join(hashlib.sha256(bytes([index & 0xFF, index >> 8])).digest() for index in range(512))
    path = folder / "bulky.hsaco"
    path.write_bytes(data + noise)
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("method", [0, 1])
def test_a_bundle_stays_packed_as_it_was(version: int, method: int, run: Callable[..., Done[str]], tmp_path: Path) -> None:
    given = bundle.plain([("gfx1030", bundle.code_object(0x36, target="gfx1030"))])
    (tmp_path / "x.hipfb").write_bytes(bundle.ccob(given, version, method))
    done = run("graft", "x.hipfb", "--retag", "gfx1030:gfx1031", "-o", "new.hipfb")
    assert (done.returncode, done.stderr) == (0, "")
    data = (tmp_path / "new.hipfb").read_bytes()
    assert (data[:4], data[4], data[6]) == (b"CCOB", version, method)
    assert set(hip.objects(data)) == {ID + "gfx1030", ID + "gfx1031"}
    if version > 1:
        assert int.from_bytes(data[8 : 12 if version == 2 else 16], "little") == len(data)


def test_replace(folder: Path, tmp_path: Path, probe: Path) -> None:
    other = bulky(tmp_path, "gfx1030")
    assert "has a gfx1030 image already" in refused(SO, hsaco=other).message
    fatpatch.graft(SO, hsaco=other, replace=True).save("new.so")
    before, after = hip.loaded(probe, tmp_path / SO), hip.loaded(probe, tmp_path / "new.so")
    assert list(after[0]) == list(before[0])
    assert after[0][ID + "gfx1030"] == sha(other.read_bytes())
    assert after[1] == before[1]
    again = fatpatch.graft("new.so", hsaco=other).to_dict()
    assert (again["grafted"], [row["target"] for row in again["present"]]) == ([], ["gfx1030"])


def test_retag_again(folder: Path) -> None:
    fatpatch.graft(SO, retags=["gfx1030:gfx1031"]).save("new.so")
    assert "every bundle with gfx1030 has an object for gfx1031 already" in refused("new.so", retags=["gfx1030:gfx1031"]).message
    replaced = fatpatch.graft("new.so", retags=["gfx1030:gfx1031"], replace=True).to_dict()
    assert (replaced["grafted"], [row["target"] for row in replaced["present"]]) == ([], ["gfx1031"] * 2)


def test_what_was_forced_is_said(run: Callable[..., Done[str]]) -> None:
    done = run("graft", SO, "--retag", "gfx1100:gfx1102", "--force", "-o", "new.so")
    assert "note: forced: code for gfx1100 on gfx1102: often done, not guaranteed" in done.stdout
    assert "note: experimental: no AMD GPU has run" in done.stdout


def mislabelled() -> bytes:
    return bundle.plain([("gfx1030", bundle.code_object(0x41, target="gfx1100"))])


def test_an_object_under_a_wrong_name_is_not_copied(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    """Its instructions are of another processor than its id says."""
    (tmp_path / "x.hipfb").write_bytes(mislabelled())
    assert "its header says gfx1100" in refused("x.hipfb", retags=["gfx1030:gfx1031"]).message
    advice = run("doctor", "x.hipfb", "--gpu", "gfx1031").stdout
    assert "no object whose code gfx1031 is known to run" in " ".join(advice.split())
    assert "--retag" not in advice


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(41)])
def test_an_object_cut_short_is_not_copied(data: bytes, folder: Path) -> None:
    (folder / "x.hipfb").write_bytes(plain(("gfx1030", data), ("gfx1100", GOOD)))
    refused("x.hipfb", (EditError, FormatError), retags=["gfx1030:gfx1031"])


def test_a_copy_leaves_program_data_alone(tmp_path: Path) -> None:
    data = bundle.code_object(0x36, ("amdgcn-amd-amdhsa--gfx1030",), target="gfx1030", comment=b"amdgcn-amd-amdhsa--gfx1030\0")
    copy = retagged(data, "gfx1031", "x")
    noted = data.index(b"gfx1030", data.index(b"amdhsa.target"))
    assert [at for at, (old, new) in enumerate(zip(data, copy, strict=True)) if old != new] == [48, noted + len("gfx103")]
    assert data.count(b"gfx1030") == 4, "twice as a kernel's name, once as a comment"


def test_every_variant_is_copied(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    on, off = bundle.code_object(0x2C | 3 << 8), bundle.code_object(0x2C | 2 << 8)
    (tmp_path / "x.hipfb").write_bytes(plain(("gfx900:xnack+", on), ("gfx900:xnack-", off)))
    assert run("graft", "x.hipfb", "--retag", "gfx900:gfx902", "--force", "-o", "new.hipfb").returncode == 0
    assert {name.removeprefix(ID) for name in hip.objects((tmp_path / "new.hipfb").read_bytes())} == {
        f"gfx90{digit}:xnack{sign}" for digit in "02" for sign in "+-"
    }


def test_the_new_id_is_one_that_the_runtime_looks_at(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    data = plain(("gfx900", bundle.code_object(0x2C)), ("gfx1030", bundle.code_object(0x36)))
    (tmp_path / "x.hipfb").write_bytes(data.replace(b"hipv4-amdgcn-amd-amdhsa--gfx900", b"openmp-amdgcn-amd-amdhsa-gfx900"))
    assert run("graft", "x.hipfb", "--retag", "gfx1030:gfx1031", "-o", "new.hipfb").returncode == 0
    assert ID + "gfx1031" in hip.objects((tmp_path / "new.hipfb").read_bytes())


def test_settings_must_not_conflict(folder: Path) -> None:
    (folder / "x.hipfb").write_bytes(plain(("gfx90a:xnack+", bundle.code_object(0x3F | 3 << 8))))
    (folder / "off").write_bytes(bundle.code_object(0x3F | 1 << 8))
    (folder / "unset").write_bytes(bundle.code_object(0x3F | 2 << 8))
    assert "states other settings" in refused("x.hipfb", hsaco="off").message
    assert len(fatpatch.graft("x.hipfb", hsaco="unset").to_dict()["grafted"]) == 1


def test_settings_in_another_order_are_the_same(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    old, new = (bundle.code_object(0x3F | 3 << 8 | 2 << 10, comment=text) for text in (b"old", b"new"))
    (tmp_path / "x.hipfb").write_bytes(plain(("gfx90a:xnack+:sramecc-", old)))
    (tmp_path / "gift").write_bytes(new)
    done = run("graft", "x.hipfb", "--hsaco", "gift", "--replace", "-o", "new.hipfb")
    assert (done.returncode, done.stderr) == (0, "")
    assert hip.objects((tmp_path / "new.hipfb").read_bytes()) == {ID + "gfx90a:xnack+:sramecc-": sha(new)}


def test_bytes_behind_a_compressed_stream(folder: Path) -> None:
    data = bytearray(bundle.ccob(plain(("gfx1030", GOOD)), 3) + b"tail")
    data[8:16] = len(data).to_bytes(8, "little")
    (folder / "x.hipfb").write_bytes(bytes(data))
    assert "behind its compressed stream" in refused("x.hipfb", retags=["gfx1030:gfx1031"]).message


def test_files_that_are_one_object_or_a_pack(folder: Path) -> None:
    (folder / "x.kpack").write_bytes(bundle.kpack({"libx.so": {"gfx1030": GOOD}}))
    shutil.copy(OBJECT, folder / "x.hsaco")
    for name, words in (("x.kpack", "is a kernel pack"), ("x.hsaco", "is one code object")):
        assert words in refused(name, retags=["gfx1030:gfx1031"]).message


def test_from_a_donor(run: Callable[..., Done[str]], tmp_path: Path, probe: Path) -> None:
    """Each object of the donor finds its bundle by its kernels."""
    assert run("graft", SO, "--retag", "gfx1030:gfx1035", "-o", "donor.so").returncode == 0
    done = run("graft", SO, "--from", "donor.so", "--target", "gfx1035", "-o", "new.so", "-v")
    assert (done.returncode, done.stderr) == (0, "")
    assert hip.loaded(probe, tmp_path / "new.so") == hip.loaded(probe, tmp_path / "donor.so")


def test_json_follows_the_schema(run: Callable[..., Done[str]]) -> None:
    done = run("graft", SO, "--retag", "gfx1030:gfx1031", "-o", "new.so", "--format", "json")
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    first = document["grafted"][0]
    assert (first["target"], first["kind"], first["device"], first["kernels"]) == ("gfx1031", "hsaco", "gfx1031", 2)
    assert (first["before"]["error"], first["after"]["target"], first["after"]["measured"]) == (209, "gfx1031", False)
    assert all(check["ok"] for check in document["checks"])


def test_wheel_and_llamafile_with_both_makers(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    """One run puts a cubin into the CUDA library and a copy into the AMD library of one archive."""
    data = (SAMPLES / DLL).read_bytes()
    (tmp_path / "x-1.0-py3-none-any.whl").write_bytes(zips.wheel((SAMPLES / SO).read_bytes(), name="x"))
    shutil.copy(SAMPLES / "demo.llamafile", tmp_path / "demo.llamafile")
    with zipfile.ZipFile(tmp_path / "demo.llamafile", "a") as archive:
        archive.writestr(zipfile.ZipInfo("ggml-rocm.dll", (2024, 1, 1, 0, 0, 0)), data)
    old = (tmp_path / "demo.llamafile").read_bytes()
    done = run(
        "graft", "demo.llamafile", "--retag", "gfx1030:gfx1031", "--from", SAMPLES / "donor.dll", "--target", "sm_61", "-o", "new.llamafile"
    )
    assert (done.returncode, done.stderr) == (0, "")
    with zipfile.ZipFile(tmp_path / "new.llamafile") as archive:
        assert [len(each) for each in hip.mapped(archive.read("ggml-rocm.dll"))] == [4, 4]
    summary = json.loads(run("inspect", "new.llamafile", "--format", "json").stdout)["files"][0]["summary"]
    assert (summary["images_by_target"]["sm_61"], summary["images_by_target"]["gfx1031"]) == (1, 2)
    assert run("undo", "new.llamafile").returncode == 0
    assert (tmp_path / "new.llamafile").read_bytes() == old
    done = run("graft", "x-1.0-py3-none-any.whl", "--retag", "gfx1030:gfx1031", "--in-place")
    assert (done.returncode, done.stderr) == (0, "")
    assert run("verify", "x-1.0-py3-none-any.whl").returncode == 0


def test_llvm_reads_the_result(run: Callable[..., Done[str]], tmp_path: Path) -> None:
    bundler, objdump = llvm.tool("clang-offload-bundler"), llvm.tool("llvm-objdump")
    if bundler is None or objdump is None or "llvm-22" not in objdump:
        pytest.skip("needs clang-offload-bundler and llvm-objdump of LLVM 22")
    expected = {ID + target for target in ("gfx906", "gfx1030", "gfx1100", "gfx1031")}
    for name in (SO, DLL):
        assert run("graft", name, "--retag", "gfx1030:gfx1031", "-o", f"new-{name}").returncode == 0
        with inspected(str(tmp_path / f"new-{name}")) as node:
            for payload in node.payloads:
                bare = tmp_path / "bundle"
                bare.write_bytes(node.source.read(payload.offset, payload.size))
                command = [bundler, "--list", "--type=o", f"--input={bare}"]
                listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
                assert {each for each in listed if not each.startswith("host")} == expected
    folder = tmp_path / "objdump"
    folder.mkdir()
    shutil.copy(tmp_path / f"new-{SO}", folder / "lib.so")
    subprocess.run([objdump, "--offloading", "lib.so"], cwd=folder, check=True, capture_output=True)
    with inspected(str(folder / "lib.so")) as node:
        for index, payload in enumerate(node.payloads):
            for image in payload.images:
                taken_out = (folder / f"lib.so.{index}.{image.identifier}").read_bytes()
                assert taken_out == node.source.read(image.data_offset, image.stored_bytes)


def test_retag_changes_names_only(tmp_path: Path) -> None:
    data = OBJECT.read_bytes()
    copy = retagged(data, "gfx1034", "x")
    assert len(copy) == len(data)
    changed = [at for at, (old, new) in enumerate(zip(data, copy, strict=True)) if old != new]
    assert len(changed) == 2, "the last digit in the metadata, and the low byte of e_flags"
    assert changed[0] == 48
    assert data[changed[1] - 6 : changed[1] + 1] == b"gfx1031"
    old, new = read_code_object(data), read_code_object(copy)
    assert (new.target, new.kernels) == ("gfx1034", old.kernels)
    assert retagged(copy, "gfx1031", "x") == data


def test_a_copy_is_what_the_compiler_writes_for_the_other_processor() -> None:
    """clang's own gfx1030 object of the same source, byte for byte: the two processors differ in name only."""
    with inspected(str(SAMPLES / SO)) as node:
        image = next(image for image in node.payloads[0].images if image.target == "gfx1030")
        assert retagged(OBJECT.read_bytes(), "gfx1030", "x") == node.source.read(image.data_offset, image.stored_bytes)


def plain(*objects: tuple[str, bytes]) -> bytes:
    return bundle.plain(list(objects))


GOOD = bundle.code_object(0x36, ("k", "m"), target="gfx1030")
WRONG = [
    ("kernel missing", bundle.code_object(0x37, ("k",), target="gfx1031"), ("shares 1 of its 2 kernels and would lose m",)),
    (
        "longer argument",
        bundle.code_object(0x37, ("k", "m"), target="gfx1031", arguments=((0, 8, "global_buffer"), (8, 8, "by_value"))),
        ("k takes 2 parameters in 16 bytes, the module's 1 in 8", "may crash"),
    ),
    ("other kernels", bundle.code_object(0x37, ("a", "b"), target="gfx1031"), ("fits no module",)),
    ("version 3", bundle.code_object(0x37, ("k", "m"), version=3), ("version 4 or later, got version 3",)),
    ("header against metadata", bundle.code_object(0x37, ("k", "m"), target="gfx1036"), ("name different processors", "gfx1036")),
    ("unknown processor", bundle.code_object(0xEE, ("k", "m")), ("mach_0xee",)),
    ("no code object", b"\x7fELF\x02\x01\x01" + bytes(57), ("got machine 0", "clang -x hip")),
    ("text", b"hello", ("expected a code object", "68656c6c")),
    ("a bundle", plain(("gfx1031", bundle.code_object(0x37, ("k", "m")))), ("is a bundle", "--from")),
]


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_wrong_objects_are_refused(data: bytes, words: tuple[str, ...], folder: Path) -> None:
    (folder / "x.hipfb").write_bytes(plain(("gfx1030", GOOD)))
    (folder / "gift").write_bytes(data)
    before = sorted(os.listdir(folder))
    error = refused("x.hipfb", hsaco="gift")
    complaint = f"{error}\n{error.hint}"
    assert [word for word in words if word not in complaint] == [], complaint
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"retags": ["gfx1030:gfx1100"]}, "nothing known says that gfx1100 runs the instructions of gfx1030"),
        ({"retags": ["gfx906:gfx900"]}, "nothing known"),
        ({"retags": ["gfx1100:gfx1101"]}, "--force makes the copy all the same"),
        ({"retags": ["gfx1030:gfx1031"], "hsaco": OBJECT}, "two images are gfx1031 for one module"),
        ({"retags": ["gfx1201:gfx1200"]}, "no bundle holds an object for gfx1201"),
        ({"hsaco": OBJECT, "codec": "zstd"}, "--compress is for fatbins"),
        ({"cubins": SAMPLES / "kernels.sm_61.cubin"}, "is for NVIDIA GPUs, and the file has no code for those"),
        ({"donor": SAMPLES / DLL, "targets": ["gfx1032"]}, "it has: gfx906, gfx1030, gfx1100"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_refusals(options: dict[str, Any], words: str, folder: Path) -> None:
    error = refused(SO, **options)
    assert words in f"{error}\n{error.hint}"


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--retag", "gfx1030"), 2, "'' is not a known AMD processor"),
        (("--retag", "gfx1030:gfx1030"), 2, "both are the same processor"),
        (("--retag", "gfx1030:sm_61"), 2, "'sm_61' is not a known AMD processor"),
        (("--retag", "gfx1030:gfx10-3-generic"), 2, "is not a known AMD processor"),
        (("--hsaco", OBJECT, "--cuobjdump"), 5, "--cuobjdump is for CUDA"),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, tuple) else "",
)
def test_options_that_are_refused(
    options: tuple[object, ...], code: int, words: str, run: Callable[..., Done[str]], tmp_path: Path
) -> None:
    done = run("graft", SO, *options, "-o", "new.so")
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr
    assert not (tmp_path / "new.so").exists()


def test_a_code_object_into_a_cuda_library(folder: Path) -> None:
    assert "is for AMD GPUs, and the file has no code for those" in refused(SAMPLES / "donor.so", hsaco=OBJECT).message


def test_damaged_bundles_are_not_touched(folder: Path) -> None:
    whole = plain(("gfx1030", GOOD))
    packed = bytearray(bundle.ccob(whole, 3))
    packed[24] ^= 1
    hidden = bytearray(whole)
    hidden[2000] = 1
    for data, kind, words in ((bytes(packed), FormatError, "MD5"), (bytes(hidden), EditError, "no entry names")):
        (folder / "x.hipfb").write_bytes(data)
        assert words in str(refused("x.hipfb", kind, retags=["gfx1030:gfx1031"]))


def test_bundles_that_get_nothing_are_named(run: Callable[..., Done[str]]) -> None:
    done = run("graft", SO, "--hsaco", OBJECT, "-o", "new.so")
    assert "note: no gfx1031 for libhipdemo.so!.hip_fatbin!bundle[1]: its kernels fail" in done.stdout
