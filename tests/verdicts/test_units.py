"""From libraries to a wheel: alternatives by their names, which of them a CUDA release picks, and libraries that it does not need."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry

from fatpatch.gpus.devices import find
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.alternatives import alternatives, chosen_by
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.outcome import outcome_of

MAGIC = b"\x7fELF"
BITSANDBYTES = [f"bitsandbytes/libbitsandbytes_cuda{name}.so" for name in ("118", "118_nocublaslt", "122", "122_nocublaslt122")]


COPIES_AHEAD = (0x7FAE).to_bytes(16, "little") * 24
"""LDGSTS, which GPUs have from 8.0 on."""


def library(*archs: int, body: bytes = bytes(0x180), modules: int = 1) -> bytes:
    module = container(*(entry(cubin(arch=arch, body=body), kind=2, arch=arch) for arch in archs))
    return elf.shared_object([(".nv_fatbin", module * modules)])


def wheel(path: Path, **members: bytes) -> Path:
    """A wheel with the folder ``p``: a library where a member is one, else Python code."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"p/{name}{'.so' if data.startswith(MAGIC) else '.py'}", data)
    return path


def outcome(path: Path, gpu: str, cuda: str | None = None) -> str:
    with inspected(str(path)) as node:
        return outcome_of(Doctor(node, limit=1 << 24).judge(Environment(find(gpu), cuda=cuda)))


def test_one_library_for_old_gpus_and_one_for_new() -> None:
    assert alternatives(BITSANDBYTES) == [(0, 1, 2, 3)]
    assert chosen_by((11, 8), BITSANDBYTES) == (0, 1)
    assert chosen_by((12, 6), BITSANDBYTES) == (2, 3)
    assert chosen_by((13, 0), BITSANDBYTES) == ()


@pytest.mark.parametrize(("gpu", "expected"), [("GTX 1060", "runs"), ("RTX 3060", "runs"), ("RTX 5090", "will-not-run")])
def test_the_gpu_picks_among_those_of_a_cuda_release(gpu: str, expected: str, tmp_path: Path) -> None:
    """bitsandbytes 0.41.3 on a GTX 1060: below 7.5 it loads the library without cuBLASLt."""
    path = wheel(tmp_path / "x.whl", libb_cuda118=library(75, 86), libb_cuda118_nocublaslt=library(61, 70))
    assert outcome(path, gpu) == outcome(path, gpu, "11.8") == expected


TRIED = b"""
if True:
    try:
        for file in Path(__file__).parent.glob("_C*.so"):
            try:
                torch.ops.load_library(str(file))
            except Exception as e:
                logger.warning(f"Failed to load {file}: {e}")
        from . import ops
    except Exception as e:
        logger.debug(e)
"""


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        (TRIED, "runs"),
        (TRIED.replace(b"logger.warning", b"raise RuntimeError"), "will-not-run"),
        (b"torch.ops.load_library(path / '_C*.so')\n" + TRIED, "will-not-run"),
        (TRIED.replace(b"_C*.so", b"_D*.so"), "will-not-run"),
        (b"", "will-not-run"),
    ],
    ids=["tried", "raises", "one is not tried", "other libraries", "no word of them"],
)
def test_a_package_that_runs_by_its_python_code(python: bytes, expected: str, tmp_path: Path) -> None:
    """torchao 0.18 on an RTX 3060: a library for 9.0a, and one for 10.0 and newer."""
    path = wheel(tmp_path / "x.whl", _C_90a=library(90), _C_mxfp8=library(100), __init__=python)
    assert outcome(path, "RTX 3060") == expected
    assert outcome(path, "H100") == outcome(path, "B200") == "runs", "no GPU runs both, so neither needs the other"


def test_a_package_of_one_library_needs_it(tmp_path: Path) -> None:
    """FlashAttention 3: code for 9.0a alone; and xformers, one of whose libraries has a GPU that the other lacks."""
    one = wheel(tmp_path / "one.whl", _C_90a=library(90), __init__=TRIED)
    assert (outcome(one, "RTX 3060"), outcome(one, "H100")) == ("will-not-run", "runs")
    shared = wheel(tmp_path / "two.whl", _C=library(75, 80, 90), _C_flash=library(80, 90), __init__=TRIED)
    assert (outcome(shared, "T4"), outcome(shared, "GTX 980")) == ("runs-in-part", "will-not-run")


@pytest.mark.parametrize(("name", "expected"), [("libcusparseLt-f80c68d1", "runs"), ("libmine", "runs-in-part")])
def test_structured_sparsity_is_for_some_gpus(name: str, expected: str, tmp_path: Path) -> None:
    """torch 2.4.1 on an H100 has cuSPARSELt 0.5 in it, which is for 8.0 to 8.9."""
    path = wheel(tmp_path / "x.whl", libtorch_cuda=library(50, 80, 90, modules=3), **{name: library(80, 86)})
    assert (outcome(path, "H100"), outcome(path, "RTX 3060"), outcome(path, "RTX 5090")) == (expected, "runs", "will-not-run")


@pytest.mark.parametrize(
    ("body", "modules", "gpu", "expected"),
    [
        (COPIES_AHEAD, 2, "T4", "runs"),
        (bytes(0x180), 2, "T4", "runs-in-part"),
        (COPIES_AHEAD, 4, "T4", "runs-in-part"),
        (COPIES_AHEAD, 2, "RTX 5090", "runs-in-part"),
    ],
    ids=["for newer GPUs", "built for fewer GPUs", "it is the larger part", "for older GPUs"],
)
def test_a_library_of_kernels_for_newer_gpus(body: bytes, modules: int, gpu: str, expected: str, tmp_path: Path) -> None:
    """xformers 0.0.22 on a T4: FlashAttention begins at 8.0, with instructions that no GPU below has. MAGMA in PyTorch has none of them."""
    main, flash = library(75, 80, 90, 120, modules=3), library(80, 90, body=body, modules=modules)
    assert outcome(wheel(tmp_path / "x.whl", _C=main, _C_flashattention=flash), gpu) == expected
