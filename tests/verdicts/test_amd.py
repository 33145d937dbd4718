"""The verdict on AMD modules: choice by id, then what the loader says of the header; packs, bitcode, Windows and overrides."""

from __future__ import annotations

import zipfile
from pathlib import Path

import msgpack
import pytest
from builders import bundle, elf
from conftest import SAMPLES, Run
from doctor_documents import document

ANY, OFF = 1 << 8, 2 << 8


@pytest.mark.parametrize(
    ("targets", "gpu", "verdict", "words"),
    [
        ([("gfx1030", 0x36, 6)], "gfx1030", "native", "very processor"),
        ([("gfx10-3-generic", 0x53 | 1 << 24, 6)], "gfx1034", "compatible", "family"),
        ([("gfx10-3-generic", 0x53, 6)], "gfx1034", "fails", "no version of the generic target"),
        ([("gfx1030", 0x41, 6)], "gfx1030", "fails", "its header says gfx1100: the loader refuses it"),
        ([("gfx1030", 0x36, 2)], "gfx1030", "fails", "version 2"),
        ([("gfx1030", 0x36, 3)], "gfx1030", "native", "very processor"),
        ([("gfx90a:xnack-", 0x3F | OFF, 6)], "gfx90a:xnack+", "fails", "demands xnack-"),
        ([("gfx90a", 0x3F | ANY, 6)], "gfx90a:xnack+", "native", "very processor"),
        ([("gfx1100", 0x41, 6)], "gfx1030", "fails", "no code object for gfx1030, only gfx1100"),
    ],
)
def test_bundles(run: Run, tmp_path: Path, targets: list[tuple[str, int, int]], gpu: str, verdict: str, words: str) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.plain([(target, bundle.code_object(mach, version=version)) for target, mach, version in targets]))
    found = document(run, path, "--gpu", gpu, code=int(verdict == "fails"))["files"][0]["modules"][0]
    assert (found["verdict"], words in found["reason"]) == (verdict, True), found["reason"]


def test_portable_code_is_compiled_at_load_time(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.plain([("amdgcnspirv", bundle.spirv("k"))]))
    found = document(run, path, "--gpu", "gfx1201", code=0)["files"][0]
    assert (found["verdict"], found["modules"][0]["target"]) == ("jit", "amdgcnspirv")


def test_code_in_a_pack_is_not_called_missing(run: Run, tmp_path: Path) -> None:
    reference = msgpack.packb({"kernel_name": "libx.so", "kpack_search_paths": ["x_@GFXARCH@.kpack"]})

    def built(address: int) -> bytes:
        return elf.shared_object([(".rocm_kpack_ref", reference), (".hipFatBinSegment", bundle.wrapper(address, 0x4B504948))])

    path = tmp_path / "libx.so"
    path.write_bytes(built(0x10000 + built(0).index(reference)))
    found = document(run, path, "--gpu", "gfx1030", code=1)["files"][0]
    assert (found["outcome"], found["remedies"]) == ("not-read", [])
    assert "separate kernel pack" in found["modules"][0]["reason"]
    pack = tmp_path / "x.kpack"
    pack.write_bytes(bundle.kpack({"libx.so": {"gfx1030": bundle.code_object()}}, zstd=True))
    assert document(run, pack, "--gpu", "gfx1030", code=0)["files"][0]["outcome"] == "runs"


def test_an_object_file_with_bitcode(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.o"
    path.write_bytes(elf.shared_object([("__CLANG_OFFLOAD_BUNDLE__hip-amdgcn-amd-amdhsa--gfx1030", b"BC\xc0\xde" + bytes(60))]))
    found = document(run, path, "--gpu", "gfx1030", code=1)["files"][0]
    assert (found["outcome"], "linked" in found["modules"][0]["reason"]) == ("not-read", True)


def test_a_damaged_object_is_not_called_fine(run: Run, tmp_path: Path) -> None:
    data = bytearray(bundle.ccob(bundle.plain([("gfx1030", bundle.code_object())]), 3))
    data[24] ^= 1
    path = tmp_path / "x.hipfb"
    path.write_bytes(bytes(data))
    found = document(run, path, "--gpu", "gfx1030", code=1)["files"][0]
    assert (found["outcome"], "MD5" in found["modules"][0]["reason"]) == ("not-read", True)


def remedies(run: Run, *arguments: object) -> dict[str, tuple[bool | None, str | None]]:
    found = document(run, *arguments, code=1)["files"][0]
    return {row["title"]: (row["works"], row["command"]) for row in found["remedies"]}


def test_remedies_on_linux_and_windows(run: Run) -> None:
    linux = remedies(run, SAMPLES / "libhipdemo.so", "--gpu", "RX 6700 XT")
    assert linux["HSA_OVERRIDE_GFX_VERSION"] == (None, "HSA_OVERRIDE_GFX_VERSION=10.3.0 PROGRAM")
    command = "fatpatch graft libhipdemo.so --retag gfx1030:gfx1031 -o fixed-libhipdemo.so"
    assert linux["graft the gfx1030 code as gfx1031"] == (None, command)
    windows = remedies(run, SAMPLES / "hipdemo.dll", "--gpu", "RX 6700 XT")
    assert windows["HSA_OVERRIDE_GFX_VERSION"] == (False, None)
    assert "graft the gfx1030 code as gfx1031" in windows
    superset = remedies(run, SAMPLES / "libhipdemo.so", "--gpu", "RX 7600")
    assert superset["graft the gfx1100 code as gfx1102"][1].endswith("--retag gfx1100:gfx1102 --force -o fixed-libhipdemo.so")
    none = remedies(run, SAMPLES / "libhipdemo.so", "--gpu", "gfx942")
    assert none["HSA_OVERRIDE_GFX_VERSION"][0] is False
    assert not any(title.startswith("graft") for title in none)


def test_the_override_does_nothing_for_a_dll(run: Run, tmp_path: Path) -> None:
    arguments = ("--gpu", "gfx1031", "--hsa-override", "10.3.0")
    assert document(run, SAMPLES / "libhipdemo.so", *arguments, code=0)["files"][0]["outcome"] == "runs"
    done = run("doctor", SAMPLES / "hipdemo.dll", *arguments)
    assert done.returncode == 1
    assert done.stdout.startswith("WILL NOT RUN: hipdemo.dll on gfx1031\n")
    assert "HSA_OVERRIDE_GFX_VERSION=10.3.0 does nothing: the runtime of Windows does not look at it" in " ".join(done.stdout.split())
    path = tmp_path / "both.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("hipdemo.dll", "libhipdemo.so"):
            archive.write(SAMPLES / name, name)
    modules = document(run, path, *arguments, code=1)["files"][0]["modules"]
    assert [module["verdict"] for module in modules] == ["fails", "fails", "native", "native"]
    assert "Windows does not look at" in modules[0]["reason"]


def test_xnack_is_a_setting_of_the_machine(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.plain([("gfx90a:xnack+", bundle.code_object(0x3F | 3 << 8))]))
    found = remedies(run, path, "--gpu", "MI250")
    assert found["HSA_XNACK"] == (None, "HSA_XNACK=1 PROGRAM")
    assert not any("OVERRIDE" in title for title in found)


def test_a_candidate_is_used(run: Run, tmp_path: Path) -> None:
    for name in ("libhipdemo.so", "donor.so"):
        (tmp_path / name).write_bytes((SAMPLES / "libhipdemo.so").read_bytes())
    assert run("graft", "donor.so", "--retag", "gfx1030:gfx1031", "--in-place", cwd=tmp_path).returncode == 0
    arguments = (tmp_path / "libhipdemo.so", "--gpu", "gfx1031", "--candidate", tmp_path / "donor.so")
    works, command = remedies(run, *arguments)["graft gfx1031 from donor.so"]
    assert works is None, "experimental"
    assert run(*command.split()[1:], cwd=tmp_path).returncode == 0
    assert run("doctor", "fixed-libhipdemo.so", "--gpu", "gfx1031", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("version", "words"), [(2, "version 2: that takes a runtime of ROCm 6.2"), (3, "version 3, which ROCm 7.1 and newer")]
)
def test_compressed_bundles_ask_for_a_runtime(run: Run, tmp_path: Path, version: int, words: str) -> None:
    path = tmp_path / "x.hipfb"
    path.write_bytes(bundle.ccob(bundle.plain([("gfx1030", bundle.code_object())]), version))
    assert words in run("doctor", path, "--gpu", "gfx1030").stdout


def test_the_printed_graft_cures(run: Run, tmp_path: Path) -> None:
    """The command that doctor prints is run as it stands."""
    for name in ("libhipdemo.so", "hipdemo.dll"):
        (tmp_path / name).write_bytes((SAMPLES / name).read_bytes())
        command = remedies(run, tmp_path / name, "--gpu", "gfx1032")["graft the gfx1030 code as gfx1032"][1]
        assert run(*command.split()[1:], cwd=tmp_path).returncode == 0
        assert run("doctor", f"fixed-{name}", "--gpu", "gfx1032", cwd=tmp_path).returncode == 0
