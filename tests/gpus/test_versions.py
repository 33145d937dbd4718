"""PTX versions and drivers, against the tables they were taken from."""

from __future__ import annotations

import csv

import pytest
from conftest import ROOT, required

from fatpatch.gpus.versions import cuda_of_ptx, driver_for_cuda, ptx_of_driver

DATA = ROOT.parent / "shared/data"


def rows(name: str) -> list[dict[str, str]]:
    if not (DATA / name).is_file():
        required(f"{name} in {DATA}")
    with (DATA / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_examples() -> None:
    assert [cuda_of_ptx(isa) for isa in ("8.4", "8.5", "8.6", "9.5", "6.0", "10.0", "")] == [
        "12.4",
        "12.5",
        "12.7",
        "13.5",
        "9.0",
        None,
        None,
    ]
    assert driver_for_cuda("12.4") == ("550.54.14", "551.61")
    assert driver_for_cuda("13.0") == ("580.65.06", "580")
    assert driver_for_cuda("13.5") is None
    assert driver_for_cuda("1.0") is None


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("535.154", "8.2"),
        ("580.159.04", "9.0"),
        ("581.15", "9.0"),
        ("552.22", "8.4"),
        ("561.09", "8.5"),
        ("390.157", "6.1"),
        (" 470 ", "7.4"),
        ("700.1", "9.4"),
        ("340.108", None),
        ("", None),
        ("unknown", None),
        ("²", None),
    ],
)
def test_ptx_of_driver(version: str, expected: str | None) -> None:
    assert ptx_of_driver(version) == expected


def test_every_release_of_the_table() -> None:
    table = rows("cuda_versions.csv")
    assert len(table) > 25
    first: dict[str, str] = {}
    for row in table:
        cuda, isa, linux, windows = (row[key] for key in ("cuda", "ptx_isa", "driver_native_linux", "driver_native_windows"))
        assert cuda_of_ptx(isa) == first.setdefault(isa, cuda)
        if cuda == "9.1":  # the table has 390.46 of newer release notes, older ones the lower number
            linux, windows = "387.26", "388.19"
        found = driver_for_cuda(cuda)
        assert found == (None if not linux else (linux, windows or linux.split(".")[0])), cuda


def test_every_branch_of_the_table() -> None:
    table = [row for row in rows("drivers.csv") if not row["branch"].startswith("340")]
    assert len(table) > 30
    for row in table:
        for branch in row["branch"].split("/"):
            assert ptx_of_driver(f"{branch}.10") == row["ptx_max"], branch
