from __future__ import annotations

from pathlib import Path

import pytest
from hostcode.machine_code import elf

from fatpatch.base.source import Source
from fatpatch.hostcode.family import Family, family
from fatpatch.scan.survey import kernels
from fatpatch.scan.walk import inspected, walked

OLD = frozenset({"_Z12mul_mat_q8_0ILb0EEvPKvS1_Pfiiiii", "_Z13mul_mat_vec_qILi1ELi32ELi8E10block_q8_0Li2EXadL_ZN7INTERNALE"})
MIDDLE = frozenset({"_Z9mul_mat_qIL9ggml_type8ELi40ELi8ELb1EEvPKc", "_Z13mul_mat_vec_qIL9ggml_type8ELi1EEvPKvS2_Pfiiii"})
NEW = MIDDLE | {"_Z9mul_mat_fI6float2Li32ELi1ELi2EEvPKT_"}


def read(constants: bytes, names: frozenset[str]) -> Family | None:
    with walked(Source.of(elf(b"\xc3", constants)), "host") as node:
        return family(node, names)


@pytest.mark.parametrize(
    ("names", "constants", "era", "by_list"),
    [
        (OLD, b"\0", "2023-24 (MMQ per type)", False),
        (MIDDLE, b"\0", "mid 2024", False),
        (NEW, b"\0", "2025 on (arch list decides)", False),
        (MIDDLE, b"\0ggml was not compiled with any CUDA arch <= %d\0", "2025 on (arch list decides)", True),
        (frozenset(), b"\0/src/ggml-cuda.cu\0", "unknown", False),
    ],
)
def test_eras(names: frozenset[str], constants: bytes, era: str, by_list: bool) -> None:
    found = read(constants, names)
    assert found is not None
    assert (found.project, found.era, found.uses_arch_list) == ("ggml", era, by_list)
    assert found.evidence


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        (b"\0%s: GGML_CUDA_FORCE_MMQ:   no\n\0", False),
        (b"\0%s: GGML_CUDA_FORCE_MMQ:    yes\n\0", True),
        (b"\0%s: GGML_CUDA_FORCE_MMQ:    yes\n\0%s: GGML_CUDA_FORCE_MMQ:    no\n\0", None),
        (b"\0/src/ggml-cuda.cu\0", None),
    ],
)
def test_force_mmq(constants: bytes, expected: bool | None) -> None:
    found = read(constants, frozenset())
    assert found is not None
    assert found.force_mmq is expected


@pytest.mark.parametrize(
    ("names", "constants"),
    [
        (frozenset({"_Z6gatherIdEvPT_PKS0_3Bighd", "reverse"}), b"\0nothing of note\0"),
        (
            frozenset({"_Z13quantize_q8_1PKfPii"}),
            b"\0ggml_backend_cuda_init\0",
        ),  # one kernel, and a name that a user of the library has, too
        (frozenset(), b""),
    ],
)
def test_others(names: frozenset[str], constants: bytes) -> None:
    assert read(constants, names) is None


def test_arch_list_comes_along() -> None:
    found = read(b"\0ARCHS\x00610,700\0ggml was not compiled with any CUDA arch <= %d\0", frozenset())
    assert found is not None
    assert found.arch_list == (610, 700)


@pytest.mark.parametrize("member", ["ggml-cuda.dll", "ggml-cuda.so"])
def test_sample(samples: Path, member: str) -> None:
    with inspected(str(samples / "demo.llamafile")) as node:
        part = next(child for child in node.members if child.path == member)
        names = frozenset(kernel.name for _, found in kernels(part, jobs=1) for kernel in found)
        found = family(part, names)
    assert found is not None
    assert (found.project, found.era, found.arch_list, found.force_mmq) == ("ggml", "2023-24 (MMQ per type)", None, None)
