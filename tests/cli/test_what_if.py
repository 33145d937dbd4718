"""``inspect --what-if``: the bytes are those that the codecs give, target by target; nothing is written."""

from __future__ import annotations

import json
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import lz4.block
import pytest
import zstandard
from builders import bundle, elf
from builders.cubin import cubin
from builders.fatbin import concatenated, container, entry, packed
from conftest import ROOT, SAMPLES, corpus_file

from fatpatch.what_if import Plan, plan

SCHEMA = json.loads((ROOT / "fatpatch/render/what-if-1.schema.json").read_text())
Run = Callable[..., "subprocess.CompletedProcess[str]"]
HEADER = 64


def sass(arch: int, name: str = "k") -> bytes:
    return cubin(arch=arch, kernels=(name,))


def plain(data: bytes, arch: int) -> bytes:
    return entry(data, kind=2, major=1, minor=7, arch=arch)


def file_of(run: Run, path: Path, wish: str) -> dict[str, Any]:
    done = run("inspect", path, "--what-if", wish, "--format", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    (file,) = document["files"]
    assert isinstance(file, dict)
    assert file["stored"] == sum(row["stored"] for place in file["places"] for row in place["targets"])
    assert file["then"] == sum(row["then"] for place in file["places"] for row in place["targets"])
    return file


def by_target(file: dict[str, Any]) -> dict[str, tuple[int, int, bool]]:
    return {row["target"]: (row["stored"], row["then"], row["dropped"]) for place in file["places"] for row in place["targets"]}


def padded(data: bytes) -> int:
    return HEADER + -(-len(data) // 8) * 8


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "zstd-19": lambda data: zstandard.ZstdCompressor(level=19).compress(data),
    "lz4-9": lambda data: lz4.block.compress(data, mode="high_compression", compression=9, store_size=False),
    "zlib-9": lambda data: zlib.compress(data, 9),
    "none": lambda data: data,
}


@pytest.mark.parametrize("codec", CODECS)
def test_every_entry_is_compressed(run: Run, tmp_path: Path, codec: str) -> None:
    images = {arch: sass(arch, f"kernel_{arch}") for arch in (61, 75, 90)}
    path = tmp_path / "libx.so"
    stored = packed(images[90], "lz4", kind=2, major=1, minor=7, arch=90)
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(plain(images[61], 61), plain(images[75], 75), stored))]))
    rows = by_target(file_of(run, path, f"drop=sm_6*; compress={codec}"))
    assert rows["sm_61"] == (padded(images[61]), 0, True)
    assert rows["sm_75"] == (padded(images[75]), padded(CODECS[codec](images[75])), False)
    assert rows["sm_90"] == (len(stored), padded(CODECS[codec](images[90])), False)


def test_dropping_alone_leaves_the_rest(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    kept = packed(sass(90), "zstd", kind=2, major=1, minor=7, arch=90)
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(plain(sass(75), 75), kept))]))
    assert by_target(file_of(run, path, "drop=sm_75"))["sm_90"] == (len(kept), len(kept), False)


def test_shared_blobs_are_compressed_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.fatbin"
    images = [(2, arch, 0x11, sass(arch, "k" * arch)) for arch in (75, 90)]
    path.write_bytes(container(concatenated(images)))
    file = file_of(run, path, "drop=sm_75")
    assert file["places"][0]["shared_blobs"]
    rows = by_target(file)
    assert rows["sm_75"][1:] == (0, True)
    assert 0 < rows["sm_90"][1] < file["stored"]


@pytest.mark.parametrize("form", ["plain", "ccob"])
def test_bundles(run: Run, tmp_path: Path, form: str) -> None:
    objects = [(name, bundle.code_object(mach, target=name)) for name, mach in (("gfx1030", 0x36), ("gfx1100", 0x41))]
    data = bundle.plain(objects)
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".hip_fatbin", bundle.ccob(data, version=2) if form == "ccob" else data)]))
    rows = by_target(file_of(run, path, "drop=gfx1030"))
    assert rows["gfx1030"][1:] == (0, True)
    stored, then, _ = rows["gfx1100"]
    if form == "plain":
        assert stored == then == len(objects[1][1])
    else:
        assert 0 < then <= stored * 2
    small = file_of(run, path, "compress=zstd-19")
    wish = zstandard.ZstdCompressionParameters.from_level(19, source_size=len(data), enable_ldm=True)
    assert small["then"] == 32 + len(zstandard.ZstdCompressor(compression_params=wish).compress(data))
    again = tmp_path / "again.so"
    packed_well = bundle.ccob(data, version=2, body=zstandard.ZstdCompressor(compression_params=wish).compress(data))
    again.write_bytes(elf.shared_object([(".hip_fatbin", packed_well)]))
    same = file_of(run, again, "compress=zstd-19")
    assert same["stored"] == len(packed_well)
    assert same["then"] - same["stored"] == 8  # a header of version 3 instead of 2: nothing is saved that is not there
    lz4_is_no_method_of_bundles = file_of(run, path, "compress=lz4")
    assert lz4_is_no_method_of_bundles["then"] == lz4_is_no_method_of_bundles["stored"]
    assert lz4_is_no_method_of_bundles["places"][0]["payloads_kept"] == 1


def test_text(run: Run) -> None:
    done = run("inspect", "kernels-1.0-py3-none-linux_x86_64.whl", "--what-if", "drop=sm_61;compress=zstd-19")
    assert done.returncode == 0
    assert "GPU code 56.3 kB -> " in done.stdout
    assert "without sm_61, compressed with zstd-19" in done.stdout
    assert "needs driver 550.54.14" in done.stdout
    assert "compressed already" in done.stdout
    assert run("inspect", "MANIFEST.toml", "--what-if", "drop=sm_61").stdout == "MANIFEST.toml: no GPU code\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        ";",
        "drop=",
        "drop",
        "drop=;compress=lz4",
        "compress=bzip2",
        "compress=zstd-23",
        "compress=lz4-13",
        "compress=none-1",
        "keep=sm_61",
    ],
)
def test_bad_plans(run: Run, text: str) -> None:
    with pytest.raises(ValueError, match=r"such as|level"):
        plan(text)
    done = run("inspect", "kernels.fatbin", "--what-if", text)
    assert done.returncode == 2
    assert "expected" in done.stderr


def test_plans() -> None:
    assert plan("drop=sm_50, sm_52 ;compress=zstd-19;drop=compute_52") == Plan(("sm_50", "sm_52", "compute_52"), "zstd", 19)
    assert plan("compress=none") == Plan((), "none", None)


def test_a_slip_is_no_saving_of_nothing(run: Run) -> None:
    done = run("inspect", "kernels.fatbin", "--what-if", "drop=sm_62")
    assert done.returncode == 3
    assert "has no image for sm_62" in done.stderr
    assert run("inspect", "kernels.fatbin", "--what-if", "drop=sm_75", "--kernels").returncode == 2


def test_what_cannot_be_read_stays(run: Run, tmp_path: Path) -> None:
    bad = packed(sass(75), "zstd", kind=2, major=1, minor=7)
    bad = bad[:-20] + bytes(20)
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(bad, plain(sass(90), 90)))]))
    done = run("inspect", path, "--what-if", "compress=zstd", "--format", "json")
    assert done.returncode == 4
    rows = by_target(json.loads(done.stdout)["files"][0])
    assert rows["sm_75"] == (len(bad), len(bad), False)
    assert "sm_75" in done.stderr


@pytest.mark.corpus
def test_processes_give_the_same(run: Run) -> None:
    path = corpus_file("libctransformers.so")
    one, two = (run("inspect", path, "--what-if", "compress=lz4", "-j", jobs, "--format", "json").stdout for jobs in (1, 2))
    assert one == two
    assert json.loads(one)["files"][0]["then"] > 0


def test_nothing_is_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "kernels.fatbin"
    path.write_bytes((SAMPLES / "kernels.fatbin").read_bytes())
    run("inspect", path, "--what-if", "drop=sm_75;compress=zstd")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == (SAMPLES / "kernels.fatbin").read_bytes()
