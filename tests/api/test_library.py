"""The library as its docstring shows it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fatpatch.base.errors import InputError
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.scan.survey import kernels, survey
from fatpatch.scan.walk import inspected


def test_kernels_of_a_sample(samples: Path) -> None:
    with inspected(str(samples / "libkernels.so")) as node:
        found = dict(kernels(node))
    image = next(image for image in found if image.target == "sm_75")
    kernel = next(kernel for kernel in found[image] if kernel.name == "reverse")
    assert (kernel.shared_bytes, kernel.max_threads, kernel.local_bytes) == (512, 128, 0)
    assert kernel.parameters == ((0, 8), (8, 4))
    assert dict(kernel.constant_banks or ())[0] == 0x160 + 12


@pytest.mark.parametrize("detail", [False, True])
def test_a_finding_arrives_from_a_worker_as_it_was(samples: Path, detail: bool) -> None:
    with inspected(str(samples / "libkernels.so")) as node:
        found = [finding for _, finding in survey([node], limit=1 << 30, digest=True, detail=detail, jobs=1)]
    assert any(finding.rows for finding in found)
    arrived = pickle.loads(pickle.dumps(found))
    assert arrived == found
    for finding in arrived:
        for row in finding.rows or ():
            assert type(row) is KernelFacts
            assert (row.parameters is not None) == detail


def test_a_missing_file_is_an_input_error() -> None:
    with pytest.raises(InputError), inspected("absent"):
        pass
