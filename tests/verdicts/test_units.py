"""From libraries to a wheel: alternatives by their names, and which of them a CUDA release picks."""

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

BITSANDBYTES = [f"bitsandbytes/libbitsandbytes_cuda{name}.so" for name in ("118", "118_nocublaslt", "122", "122_nocublaslt122")]


def library(*archs: int) -> bytes:
    return elf.shared_object([(".nv_fatbin", container(*(entry(cubin(arch=arch), kind=2, arch=arch) for arch in archs)))])


def wheel(path: Path, **members: bytes) -> Path:
    """A wheel; of a name ``a__b`` the folder is a."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/") + (".so" if data[:1] == b"\x7f" else ".py"), data)
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
    path = wheel(tmp_path / "x.whl", b__libb_cuda118=library(75, 86), b__libb_cuda118_nocublaslt=library(61, 70))
    assert outcome(path, gpu) == outcome(path, gpu, "11.8") == expected
