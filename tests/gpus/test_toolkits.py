"""What toolkits compile and error texts, against literals from NVIDIA's tools and documents."""

from __future__ import annotations

import csv

import pytest
from conftest import ROOT, required

from fatpatch.gpus.cuda_errors import error_text
from fatpatch.gpus.selection import DEVICES
from fatpatch.gpus.toolkits import (
    default_arch,
    expansion,
    is_newest,
    known_archs,
    newest_toolkit_for,
    releases,
    toolkit,
    toolkits_for,
)

DATA = ROOT.parent / "shared/data"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("sm_30", ("6.5", "10.2")),
        ("sm_35", ("6.5", "11.8")),
        ("sm_60", ("8.0", "12.9")),
        ("sm_61", ("8.0", "12.9")),
        ("compute_61", ("8.0", "12.9")),
        ("sm_70", ("9.0", "12.9")),
        ("sm_75", ("10.0", "13.5")),
        ("sm_86", ("11.1", "13.5")),
        ("sm_89", ("11.8", "13.5")),
        ("sm_90", ("11.8", "13.5")),
        ("sm_90a", ("12.0", "13.5")),
        ("sm_100f", ("12.9", "13.5")),
        ("sm_120", ("12.8", "13.5")),
        ("sm_120f", ("12.9", "13.5")),
        ("sm_101a", ("12.8", "12.9")),
        ("sm_107a", ("13.4", "13.5")),
        ("sm_110", ("13.0", "13.5")),
        ("sm_61a", None),
        ("sm_99", None),
        ("gfx1030", None),
        ("", None),
        ("sm_61 ", ("8.0", "12.9")),
        ("sm_\uff16\uff11", None),
    ],
)
def test_toolkits_for(target: str, expected: tuple[str, str] | None) -> None:
    assert toolkits_for(target) == expected
    assert newest_toolkit_for(target) == (expected and expected[1])


def test_newest() -> None:
    assert is_newest("13.5")
    assert not is_newest("12.9")


def test_expansion_of_arch_all() -> None:
    assert expansion("all-major", "12.4") == ("sm_50", "sm_60", "sm_70", "sm_80", "sm_90", "compute_90")
    assert expansion("all-major", "11.8") == ("sm_35", "sm_50", "sm_60", "sm_70", "sm_80", "sm_90", "compute_90")
    assert expansion("all-major", "13.0") == ("sm_75", "sm_80", "sm_90", "sm_100", "sm_110", "sm_120", "compute_120")
    everything = expansion("all", "13.0")
    assert everything is not None
    assert everything[:3] == ("sm_75", "sm_80", "sm_86")
    assert everything[-2:] == ("sm_121", "compute_120")
    assert expansion("all", "11.2") is None
    assert expansion("all", "12.7") is None
    assert expansion("all", "1.0") is None


def test_defaults() -> None:
    assert [default_arch(cuda) for cuda in ("10.2", "11.8", "12.9", "13.0", "12.7", "1.0")] == [
        "sm_30",
        "sm_52",
        "sm_52",
        "sm_75",
        None,
        None,
    ]
    compression = {release.cuda: release.compression for release in releases()}
    assert [compression.get(cuda) for cuda in ("11.8", "12.9", "13.0", "10.2")] == ["lz4", "lz4", "zstd", None]
    found = toolkit("12.8")
    assert found is not None
    assert (found.ptx, found.compression_how, found.suffixed) == ("8.7", "manual", ("90a", "100a", "101a", "120a"))
    assert toolkit("12.7") is not None


def test_every_device_of_the_load_rules_has_a_toolkit() -> None:
    assert set(DEVICES) <= known_archs()


def test_collected_table() -> None:
    if not (DATA / "cuda_versions.csv").is_file():
        required("cuda_versions.csv")
    with (DATA / "cuda_versions.csv").open(newline="") as file:
        collected = {row["cuda"]: row for row in csv.DictReader(file)}
    own = {release.cuda: release for release in releases()}
    assert set(own) - set(collected) == {"6.5", "7.0", "7.5", "8.0", "12.7"}
    for cuda, row in collected.items():
        assert list(own[cuda].sms) == [int(part) for part in row["sm_list"].split()]
        assert list(own[cuda].suffixed) == row["suffixed_targets"].split()
        assert own[cuda].ptx == row["ptx_isa"]
        assert default_arch(cuda) == (row["default_arch"] or None)
        for option, column in (("all", "arch_all"), ("all-major", "arch_all_major")):
            expected = tuple(row[column].replace("+", "").split()) or None
            assert expansion(option, cuda) == expected, (cuda, option)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "name", "runtime", "text"),
    [
        (0, "CUDA_SUCCESS", "cudaSuccess", "no error"),
        (35, "cudaErrorInsufficientDriver", "cudaErrorInsufficientDriver", "CUDA driver version is insufficient for CUDA runtime version"),
        (100, "CUDA_ERROR_NO_DEVICE", "cudaErrorNoDevice", "no CUDA-capable device is detected"),
        (200, "CUDA_ERROR_INVALID_IMAGE", "cudaErrorInvalidKernelImage", "device kernel image is invalid"),
        (209, "CUDA_ERROR_NO_BINARY_FOR_GPU", "cudaErrorNoKernelImageForDevice", "no kernel image is available for execution on the device"),
        (218, "CUDA_ERROR_INVALID_PTX", "cudaErrorInvalidPtx", "a PTX JIT compilation failed"),
        (222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "cudaErrorUnsupportedPtxVersion", "the provided PTX was compiled with an unsupported toolchain"),
        (223, "CUDA_ERROR_JIT_COMPILATION_DISABLED", "cudaErrorJitCompilationDisabled", "PTX JIT compilation was disabled"),
        (999, "CUDA_ERROR_UNKNOWN", "cudaErrorUnknown", "unknown error"),
        (123456, "error 123456", "", "an error number that is not known here"),
    ],
)  # fmt: skip
def test_errors(number: int, name: str, runtime: str, text: str) -> None:
    assert error_text(number) == (name, text, runtime)
