"""Real libraries pruned, compacted and recompressed: smaller by what went, every kept image the same, doctor's answers unchanged."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
from collections import Counter
from pathlib import Path

import lief
import pytest
from conftest import corpus_file
from edit.elf_builder import fatpatch
from edit.test_elf import tool
from elftools.elf.elffile import ELFFile

pytestmark = pytest.mark.corpus

FILES = {
    "faiss": ("libfaiss-6b43fd57.so", ("--drop", "sm_70"), ("A100", "RTX 3060", "RTX 4090")),
    "bitsandbytes": ("libbitsandbytes_cuda118.so", ("--drop", "sm_60,sm_70"), ("RTX 2060", "RTX 3060", "RTX 4090", "H100")),
    "node-llama-cpp": ("linux-x64-cuda/llama-addon.node", ("--drop", "sm_52,compute_52"), ("GTX 1060", "V100", "RTX 4090")),
    "node-llama-cpp-dll": ("win-x64-cuda/llama-addon.node", ("--drop", "sm_52,compute_52"), ("GTX 1060", "V100", "RTX 4090")),
    "cublas": ("libcublas.so.12", ("--for", "RTX 3060", "--for", "GTX 1060"), ("RTX 3060", "GTX 1060")),
    "rocm": ("libbitsandbytes_rocm71.so", ("--keep", "gfx90a,gfx1030"), ("MI210", "RX 6800")),
    "gpt4all": ("libllamamodel-mainline-cuda.so", ("--for", "GTX 1060"), ("GTX 1060",)),
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def entries(data: bytes) -> Counter[tuple[int, int, str]]:
    """(kind, arch, sha256 of the stored bytes) of all entries of all fatbins, found by their magic, by nothing of fatpatch."""
    found: Counter[tuple[int, int, str]] = Counter()
    for match in re.finditer(re.escape(b"\x50\xed\x55\xba\x01\x00\x10\x00"), data):
        at = match.start() + 16
        end = at + struct.unpack_from("<Q", data, match.start() + 8)[0]
        if end > len(data):
            continue
        while at < end:
            kind, version, head, size = struct.unpack_from("<HHIQ", data, at)
            if version != 0x101 or head < 64:
                break
            (arch,) = struct.unpack_from("<I", data, at + 28)
            found[kind, arch, hashlib.sha256(data[at : at + head + size]).hexdigest()] += 1
            at += head + size
    return found


def judged(path: Path, gpu: str) -> tuple[object, object, list[object]]:
    """What doctor says, places aside: of the file, and of each module."""
    found = json.loads(fatpatch("doctor", path, "--gpu", gpu, "--format", "json").out)["files"][0]
    modules = [(row["target"], row["verdict"], row["cuda_error"]) for row in found["modules"]]
    return found["verdict"], found["outcome"], modules


@pytest.mark.parametrize("name", [pytest.param(each, marks=pytest.mark.slow) if each == "cublas" else each for each in FILES])
def test_compacted(name: str, tmp_path: Path) -> None:
    ending, wish, gpus = FILES[name]
    source = corpus_file(ending)
    after = tmp_path / source.name
    answer = fatpatch(
        "prune", source, *wish, "--compact", "-o", after, "--format", "json", *(["--drop-signature"] if name.endswith("dll") else [])
    )
    assert answer.code == 0, answer
    document = json.loads(answer.out)
    before_data, data = source.read_bytes(), after.read_bytes()
    freed = sum(row["stored"] - row["stored_then"] for row in document["targets"])
    shrunk = len(before_data) - len(data)
    if name != "rocm":  # of compressed bundles a share is counted, and they are packed anew
        assert abs(shrunk - freed) <= max(0.01 * freed, 16384), (shrunk, freed)
        kept, all_there = entries(data), entries(before_data)
        assert not kept - all_there
        gone = all_there - kept
        assert sum(gone.values()) == sum(row["images"] - row["images_then"] for row in document["targets"])
    for gpu in gpus:
        assert judged(after, gpu)[2] == judged(source, gpu)[2], gpu
        if (name, gpu) != ("cublas", "GTX 1060"):  # of modules without its code, doctor tells by their targets whether they are meant so
            assert judged(after, gpu) == judged(source, gpu), gpu
    assert fatpatch("verify", after).code == 0
    for command in (["objdump", "-x"], ["objdump", "-p"]):
        assert tool(*command, after).returncode == 0
        assert tool(*command, after).stderr == tool(*command, source).stderr
    assert lief.parse(str(after)) is not None
    if not name.endswith("dll"):
        complaints = [tool("readelf", "-aW", path).stderr for path in (source, after)]
        assert complaints[0] == complaints[1]
        stripped = tmp_path / "stripped"
        assert tool("strip", "-o", stripped, after).returncode == 0
        for gpu in gpus:
            assert judged(stripped, gpu) == judged(after, gpu), gpu
        assert tool("patchelf", "--set-rpath", "$ORIGIN/elsewhere", stripped).returncode == 0
        assert judged(stripped, gpus[0]) == judged(source, gpus[0])
        addresses = [
            [
                (each.name, each["sh_addr"])
                for each in ELFFile(path.open("rb")).iter_sections()
                if each["sh_flags"] & 2 and "fatbin" not in each.name
            ]
            for path in (source, after)
        ]
        assert addresses[0] == addresses[1]
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == sha256(source)


@pytest.mark.parametrize("name", ["bitsandbytes", "node-llama-cpp-dll", "rocm"])
def test_zeros(name: str, tmp_path: Path) -> None:
    """Without --compact the file keeps its size, and undo restores it too."""
    ending, wish, gpus = FILES[name]
    source = corpus_file(ending)
    after = tmp_path / source.name
    after.write_bytes(source.read_bytes())
    assert fatpatch("prune", after, *wish, "--in-place", *(["--drop-signature"] if name.endswith("dll") else [])).code == 0
    assert after.stat().st_size == source.stat().st_size or name.endswith("dll")
    for gpu in gpus:
        assert judged(after, gpu) == judged(source, gpu), gpu
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == sha256(source)


def test_cublas_is_not_broken(tmp_path: Path) -> None:
    """The accident of nvprune's users: most modules serve 7.5 by sm_70, some have their own sm_75."""
    answer = fatpatch("prune", corpus_file("libcublas.so.12"), "--drop", "sm_70", "-o", tmp_path / "x")
    assert answer.code == 6
    assert "sm_75 loads sm_70 here" in answer.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("codec", "level"), [("zstd", "12"), ("lz4", "12")])
def test_recompressed(codec: str, level: str, tmp_path: Path) -> None:
    source = corpus_file("libbitsandbytes_cuda118.so")
    after = tmp_path / "x.so"
    assert fatpatch("recompress", source, "--codec", codec, "--level", level, "--compact", "-o", after).code == 0
    assert after.stat().st_size < source.stat().st_size
    digests = [
        [
            (image["target"], image["sha256"])
            for payload in json.loads(fatpatch("inspect", path, "--sha256", "--format", "json").out)["files"][0]["payloads"]
            for image in payload["images"]
        ]
        for path in (source, after)
    ]
    assert digests[0] == digests[1]
    for gpu in ("RTX 3060", "H100"):
        assert judged(after, gpu) == judged(source, gpu)
    assert fatpatch("undo", after).code == 0
    assert sha256(after) == sha256(source)


@pytest.mark.oracle
def test_cuobjdump_lists_what_is_left(oracle: Path, tmp_path: Path) -> None:
    after = tmp_path / "x.so"
    assert fatpatch("prune", corpus_file("libbitsandbytes_cuda118.so"), "--keep", "sm_80,sm_90", "--compact", "-o", after).code == 0
    counts = []
    for path in (corpus_file("libbitsandbytes_cuda118.so"), after):
        listed = subprocess.run([oracle, "-lelf", path], capture_output=True, text=True, check=True).stdout
        counts.append(Counter(re.findall(r"\.(sm_\d+)\.cubin", listed)))
    assert counts[1] == {target: count for target, count in counts[0].items() if target in ("sm_80", "sm_90")}
    assert counts[1]
