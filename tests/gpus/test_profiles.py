"""Names of parts of a GPU and of boards; the nearest names by number; drivers by the CUDA version that nvidia-smi shows."""

from __future__ import annotations

import pytest

from fatpatch.base.errors import InputError
from fatpatch.gpus.devices import candidates, find
from fatpatch.gpus.drivers import driver


@pytest.mark.parametrize(
    ("text", "name", "target"),
    [
        ("GRID A100D-4C", "A100", "sm_80"),
        ("A30-12C", "A30", "sm_80"),
        ("L40S-48Q", "L40S", "sm_89"),
        ("GRID V100D-8Q", "V100", "sm_70"),
        ("GRID RTX8000-48Q", "Quadro RTX 8000", "sm_75"),
        ("NVIDIA RTX6000-Ada-24Q", "RTX 6000 Ada Generation", "sm_89"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "H100 80GB HBM3", "sm_90"),
        ("A100-SXM4-40GB MIG 1g.5gb", "A100-SXM4-40GB", "sm_80"),
        ("Orin Nano Super", "Jetson Orin Nano", "sm_87"),
        ("DRIVE AGX Orin", "Jetson AGX Orin", "sm_87"),
        ("IGX Orin", "Jetson AGX Orin", "sm_87"),
        ("DRIVE Thor", "Jetson AGX Thor", "sm_110"),
        ("Jetson Orin Nano Super Developer Kit", "Jetson Orin Nano", "sm_87"),
    ],
)
def test_part_of_a_gpu(text: str, name: str, target: str) -> None:
    found = find(text)
    assert (found.name, found.target) == (name, target)
    assert found.note
    assert candidates(text)


@pytest.mark.parametrize("text", ["RTX 3060", "A100-SXM4-40GB", "RTX 4070 Super", "T4"])
def test_a_gpu_itself_is_no_part(text: str) -> None:
    assert "profile" not in find(text).note
    assert "slice" not in find(text).note


@pytest.mark.parametrize(("text", "first"), [("RTX 9090", ["GeForce RTX 5090", "GeForce RTX 4090"]), ("GTX 1690", ["GeForce GTX 1660"])])
def test_nearest_by_number(text: str, first: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        find(text)
    names = [row.strip().rpartition(" (")[0] for row in str(caught.value.hint).partition(": ")[2].split(",")]
    assert names[: len(first)] == first


def test_a_driver_by_the_cuda_version_that_nvidia_smi_shows() -> None:
    for text in ("12.8", "CUDA 12.8"):
        found = driver(text)
        assert (found.branch, found.cuda) == ("570", "12.8")
        assert "CUDA 12.8" in found.note
    assert driver("535.154").cuda == "12.2"
    with pytest.raises(InputError, match="no driver is known"):
        driver("19.9")
