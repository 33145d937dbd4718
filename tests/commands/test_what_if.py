"""``inspect --what-if``: the bytes are those of the edits' own dry runs, and those that the codecs give; nothing is written."""

from __future__ import annotations

import json
import subprocess
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
from conftest import ROOT, SAMPLES

from fatpatch.edit.rewrite.what_if import WhatIf, what_if

SCHEMA = json.loads((ROOT / "fatpatch/commands/inspect/what-if-2.schema.json").read_text())
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
    assert file["stored"] == sum(row["stored"] for row in file["targets"])
    assert file["stored_then"] == sum(row["stored_then"] for row in file["targets"])
    return file


def by_target(file: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {row["target"]: (row["stored"], row["stored_then"]) for row in file["targets"]}


def padded(data: bytes) -> int:
    return -(-len(data) // 8) * 8


CODECS: dict[str, Callable[[bytes], bytes]] = {
    "zstd-19": lambda data: zstandard.ZstdCompressor(level=19).compress(data),
    "lz4-9": lambda data: lz4.block.compress(data, mode="high_compression", compression=9, store_size=False),
}


@pytest.mark.parametrize("codec", CODECS)
def test_entries_are_compressed_as_by_the_codec(run: Run, tmp_path: Path, codec: str) -> None:
    images = {arch: sass(arch, f"kernel_{arch}") for arch in (61, 75, 90)}
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(*(plain(images[arch], arch) for arch in images)))]))
    rows = by_target(file_of(run, path, f"drop=sm_6*; compress={codec}"))
    assert rows["sm_61"] == (padded(images[61]), 0)
    for arch in (75, 90):
        stored, then = rows[f"sm_{arch}"]
        assert stored == padded(images[arch])
        assert 0 <= then - len(CODECS[codec](images[arch])) < 8


@pytest.mark.parametrize(
    ("wish", "command"),
    [
        ("drop=sm_50,sm_80", ["prune", "--drop", "sm_50,sm_80"]),
        ("drop=sm_9*", ["prune", "--drop", "sm_9*", "--force"]),
        ("compress=zstd-19", ["recompress", "--codec", "zstd", "--level", "19"]),
        ("compress=none", ["recompress", "--codec", "none"]),
    ],
)
@pytest.mark.parametrize("name", ["libkernels.so", "demo.llamafile", "kernels-1.0-py3-none-linux_x86_64.whl", "kernels.fatbin"])
def test_the_dry_run_says_the_same(run: Run, name: str, wish: str, command: list[str]) -> None:
    if name == "demo.llamafile" and "drop" in wish:
        wish, command = "drop=sm_70", ["prune", "--drop", "sm_70", "--force"]
    mine = file_of(run, SAMPLES / name, wish)
    done = run(command[0], SAMPLES / name, *command[1:], "--dry-run", "--format", "json")
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    assert mine["targets"] == theirs["targets"]
    assert mine["lost"] == theirs["lost"]


def test_both_are_what_one_edit_after_the_other_gives(run: Run, tmp_path: Path) -> None:
    small, smaller = tmp_path / "small.fatbin", tmp_path / "smaller.fatbin"
    assert run("prune", "kernels.fatbin", "--drop", "sm_50,compute_52", "-o", small).returncode == 0
    assert run("recompress", small, "--codec", "zstd", "--level", 19, "-o", smaller).returncode == 0
    then = by_target(file_of(run, SAMPLES / "kernels.fatbin", "drop=sm_50,compute_52;compress=zstd-19"))
    now = by_target(file_of(run, smaller, "compress=zstd-19"))
    assert {target: sizes[1] for target, sizes in then.items() if sizes[1]} == {target: sizes[0] for target, sizes in now.items()}


def test_images_in_one_block_with_others_stay(run: Run, tmp_path: Path) -> None:
    """As prune says: 'fatpatch expand' parts them."""
    path = tmp_path / "x.fatbin"
    path.write_bytes(container(concatenated([(2, arch, 0x11, sass(arch, "k" * arch)) for arch in (75, 90)])))
    file = file_of(run, path, "drop=sm_75")
    assert by_target(file)["sm_75"][1] > 0
    assert "expand" in file["notes"][0]


@pytest.mark.parametrize("form", ["plain", "ccob"])
def test_bundles(run: Run, tmp_path: Path, form: str) -> None:
    objects = [(name, bundle.code_object(mach, target=name)) for name, mach in (("gfx1030", 0x36), ("gfx1100", 0x41))]
    data = bundle.plain(objects)
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".hip_fatbin", bundle.ccob(data, version=2) if form == "ccob" else data)]))
    file = file_of(run, path, "drop=gfx1030")
    rows = by_target(file)
    assert rows["gfx1030"][1] == 0
    assert rows["gfx1100"][1] > 0
    if form == "plain":
        assert rows["gfx1100"] == (len(objects[1][1]), len(objects[1][1]))
    both = by_target(file_of(run, path, "drop=gfx1030;compress=zstd-19"))
    assert both["gfx1030"][1] == 0
    assert 0 < both["gfx1100"][1] <= rows["gfx1100"][1]
    lz4_is_no_codec_of_bundles = file_of(run, path, "compress=lz4")
    assert lz4_is_no_codec_of_bundles["stored_then"] == lz4_is_no_codec_of_bundles["stored"]
    assert "zstd and zlib only" in lz4_is_no_codec_of_bundles["notes"][0]


def test_text(run: Run) -> None:
    done = run("inspect", "kernels-1.0-py3-none-linux_x86_64.whl", "--what-if", "drop=sm_61;compress=zstd-19")
    assert done.returncode == 0
    assert "without sm_61, compressed with zstd-19" in done.stdout
    assert "550.54.14" in done.stdout
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
        what_if(text)
    done = run("inspect", "kernels.fatbin", "--what-if", text)
    assert done.returncode == 2
    assert "expected" in done.stderr


def test_plans() -> None:
    assert what_if("drop=sm_50, sm_52 ;compress=zstd-19;drop=compute_52") == WhatIf(("sm_50", "sm_52", "compute_52"), "zstd", 19)
    assert what_if("compress=none") == WhatIf((), "none", None)


def test_a_slip_is_no_saving_of_nothing(run: Run) -> None:
    done = run("inspect", "kernels.fatbin", "--what-if", "drop=sm_62")
    assert done.returncode == 6
    assert "nothing in the file is for 'sm_62'" in done.stderr
    assert run("inspect", "kernels.fatbin", "--what-if", "drop=sm_75", "--kernels").returncode == 2


def test_what_cannot_be_read_stays(run: Run, tmp_path: Path) -> None:
    bad = packed(sass(75), "zstd", kind=2, major=1, minor=7)
    bad = bad[:-20] + bytes(20)
    path = tmp_path / "libx.so"
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(bad, plain(sass(90), 90)))]))
    done = run("inspect", path, "--what-if", "compress=zstd", "--format", "json")
    (file,) = json.loads(done.stdout)["files"]
    assert by_target(file)["sm_75"] == (len(bad) - HEADER, len(bad) - HEADER)
    assert any("left as it is" in note for note in file["notes"])


def test_nothing_is_written(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "kernels.fatbin"
    path.write_bytes((SAMPLES / "kernels.fatbin").read_bytes())
    run("inspect", path, "--what-if", "drop=sm_75;compress=zstd")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == (SAMPLES / "kernels.fatbin").read_bytes()
