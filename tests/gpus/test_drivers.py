"""Driver facts against literals from NVIDIA's release notes, and against the collected tables where they are at hand."""

from __future__ import annotations

import csv

import pytest
from conftest import ROOT, required

from fatpatch.base.errors import InputError
from fatpatch.gpus.drivers import (
    cuda_of_ptx,
    driver,
    drivers_for_arch,
    first_driver_for_cuda,
    first_driver_for_ptx,
    first_zstd_driver,
    minimum_for_toolkit,
    plain_version,
    ptx_of_driver,
)

DATA = ROOT.parent / "shared/data"


def rows(name: str) -> list[dict[str, str]]:
    if not (DATA / name).is_file():
        required(f"{name} in {DATA}")
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("version", "cuda", "ptx", "zstd", "oldest", "newest"),
    [
        ("340.108", "6.5", "4.1", False, 10, 50),
        ("352.39", "7.5", "4.3", False, 20, 53),
        ("367.48", "8.0", "5.0", False, 20, 62),
        ("390.157", "9.1", "6.1", False, 20, 72),
        ("470.256.02", "11.4", "7.4", False, 30, 87),
        ("495.29.05", "11.5", "7.5", False, 50, 87),
        ("525.60.13", "12.0", "8.0", False, 50, 90),
        ("535.154", "12.2", "8.2", False, 50, 90),
        ("546.33", "12.3", "8.3", False, 50, 90),
        ("550.54.14", "12.4", "8.4", True, 50, 90),
        ("552.22", "12.4", "8.4", True, 50, 90),
        ("561.09", "12.6", "8.5", True, 50, 90),
        ("566.36", "12.7", "8.6", True, 50, 90),
        ("572.16", "12.8", "8.7", True, 50, 120),
        ("580.159.04", "13.0", "9.0", True, 50, 121),
        ("590.44.01", "13.1", "9.1", True, 75, 121),
        ("615", "13.4", "9.4", True, 75, 121),
    ],
)
def test_driver(version: str, cuda: str, ptx: str, zstd: bool, oldest: int, newest: int) -> None:
    found = driver(version)
    assert (found.version, found.cuda, found.ptx, found.zstd) == (version, cuda, ptx, zstd)
    assert (found.oldest_arch, found.newest_arch) == (oldest, newest)
    assert found.branch == version.split(".")[0]


def test_generations_of_a_driver() -> None:
    assert [driver(text).oldest_generation for text in ("390.1", "470", "580", "590")] == ["Fermi", "Kepler", "Maxwell", "Turing"]


def test_a_driver_newer_than_the_table() -> None:
    found = driver("700.1")
    assert (found.branch, found.cuda, found.zstd) == ("700", "13.4", True)
    assert "newer than the table" in found.note
    assert "newer" not in driver("615.1").note


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("31.0.15.5222", "552.22"),
        ("32.0.15.6094", "560.94"),
        ("27.21.14.5671", "456.71"),
        ("9.18.13.4192", "341.92"),
        (" 470 ", "470"),
        ("535.154.05", "535.154.05"),
    ],
)
def test_forms_of_a_version(text: str, version: str) -> None:
    assert plain_version(text) == version
    assert driver(text).version == version


@pytest.mark.parametrize(
    "text", ["", "unknown", "²", "535.", "535.x", "-535", "0.0.0.0", "31.0.15", "5" * 100, "535.154\n.05", "\uff15\uff13\uff15"]
)
def test_no_version(text: str) -> None:
    with pytest.raises(InputError) as caught:
        driver(text)
    assert caught.value.hint
    assert ptx_of_driver(text) is None


def test_below_the_table() -> None:
    with pytest.raises(InputError, match="older than any known") as caught:
        driver("304.137")
    assert "340" in (caught.value.hint or "")


def test_ptx() -> None:
    isas = ("8.4", "8.5", "8.6", "9.5", "6.0", "5.0", "10.0", "")
    assert [cuda_of_ptx(isa) for isa in isas] == ["12.4", "12.5", "12.7", "13.5", "9.0", "8.0", None, None]
    assert first_driver_for_ptx("8.4") == ("550.54.14", "551.61")
    assert first_driver_for_ptx("8.5") == ("555.42.02", "555.85")
    assert first_driver_for_ptx("9.5") is None
    assert first_driver_for_ptx("99.9") is None
    versions = ("535.154", "580.159.04", "581.15", "552.22", "561.09", "390.157", " 470 ", "700.1", "340.108", "")
    assert [ptx_of_driver(each) for each in versions] == ["8.2", "9.0", "9.0", "8.4", "8.5", "6.1", "7.4", "9.4", "4.1", None]


def test_first_driver_for_cuda() -> None:
    assert first_driver_for_cuda("12.4") == ("550.54.14", "551.61")
    assert first_driver_for_cuda("13.0") == ("580.65.06", "580")
    assert first_driver_for_cuda("8.0") == ("367.48", "369.30")
    assert first_driver_for_cuda("13.5") is None
    assert first_driver_for_cuda("1.0") is None


def test_zstd() -> None:
    assert first_zstd_driver() == ("550.54.14", "551.61")
    assert driver("545.23.06").note.startswith("no zstd by NVIDIA's manual")


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        (21, ("340.21", "390")),
        (35, ("340.21", "470")),
        (52, ("346.46", "580")),
        (60, ("367.48", "580")),
        (61, ("367.48", "580")),
        (70, ("384.81", "580")),
        (75, ("410.48", None)),
        (80, ("450.51.05", None)),
        (86, ("455.23", None)),
        (89, ("520.61.05", None)),
        (90, ("520.61.05", None)),
        (100, ("570.26", None)),
        (103, ("575.51.03", None)),
        (107, ("615", None)),
        (110, ("580.65.06", None)),
        (120, ("570.26", None)),
        (72, None),
        (87, None),
        (99, None),
    ],
)
def test_drivers_for_arch(arch: int, expected: tuple[str, str | None] | None) -> None:
    assert drivers_for_arch(arch) == expected


def test_minor_version_compatibility() -> None:
    for cuda, expected in {
        "11.0": ("450.80.02", "452.39"),
        "11.8": ("450.80.02", "452.39"),
        "12.0": ("525.60.13", "527.41"),
        "12.9": ("525.60.13", "527.41"),
        "13.5": ("580.65.06", "580"),
        "10.2": ("440.33", "441.22"),
        "3.0": None,
    }.items():
        assert minimum_for_toolkit(cuda) == expected, cuda


def test_every_release_of_the_collected_table() -> None:
    table = rows("cuda_versions.csv")
    assert len(table) > 25
    first: dict[str, str] = {}
    for row in table:
        cuda, isa, linux, windows = (row[key] for key in ("cuda", "ptx_isa", "driver_native_linux", "driver_native_windows"))
        assert cuda_of_ptx(isa) == first.setdefault(isa, cuda)
        if cuda == "9.1":  # the table has 390.46 of newer release notes, older ones the lower number
            linux, windows = "387.26", "388.19"
        found = first_driver_for_cuda(cuda)
        assert found == (None if not linux else (linux, windows or linux.split(".")[0])), cuda
        minimum = row["driver_min_minor_compat_linux"], row["driver_min_minor_compat_windows"]
        assert minimum_for_toolkit(cuda) == (minimum if minimum[0] else found), cuda


def test_every_branch_of_the_collected_table() -> None:
    table = rows("drivers.csv")
    assert len(table) > 30
    for row in table:
        for branch in row["branch"].split("/"):
            found = driver(f"{branch}.10")
            assert (found.ptx, found.cuda) == (row["ptx_max"], row["cuda_native"]), branch
            assert found.zstd == row["zstd_fatbin"].startswith("yes"), branch
            assert row["oldest_generation"].startswith(found.oldest_generation) or row["oldest_generation"].startswith('"'), branch
