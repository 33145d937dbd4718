"""The gpus command as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, Run


def test_a_name(run: Run) -> None:
    done = run("gpus", "1060")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["name", "target", "generation", "chip", "driver", "CUDA", "note"]
    assert lines[1].split() == ["GeForce", "GTX", "1060", "sm_61", "Pascal", "GP106", "367.48", "to", "580", "8.0", "to", "12.9"]
    assert len(lines) == 6
    assert all("sm_61" in line for line in lines[1:])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("P40", "Tesla P40"),
        ("p100", "Tesla P100"),
        ("sm_121", "GB10"),
        ("Hopper", "H200"),
        ("10de:1c03", "GeForce GTX 1060 6GB"),
        ("gfx1031", "Radeon RX 6700 XT"),
        ("RTX 6000", "Quadro RTX 6000"),
        ("GTX 750", "GM206"),
    ],
)
def test_other_texts(run: Run, text: str, found: str) -> None:
    done = run("gpus", text)
    assert done.returncode == 0
    assert found in done.stdout


def test_all(run: Run) -> None:
    short, long = run("gpus").stdout, run("gpus", "-v").stdout
    rows = {line.split()[0]: line for line in short.splitlines() if line[:3] in ("sm_", "gfx")}
    assert "GeForce RTX 4090" in rows["sm_89"]
    assert "450.51.05 on" in rows["sm_80"]
    assert "RDNA2" in rows["gfx1030"]
    assert len(short.splitlines()) < 80
    assert len(long.splitlines()) > 850
    assert {"sm_50", "sm_121", "gfx942"} <= set(rows)


def test_vendor(run: Run) -> None:
    assert "gfx" not in run("gpus", "--vendor", "nvidia").stdout
    assert "sm_" not in run("gpus", "--vendor", "amd").stdout
    done = run("gpus", "--vendor", "amd", "1060")
    assert done.returncode == 3
    assert "leave --vendor out" in done.stderr
    assert run("gpus", "--vendor", "intel").returncode == 2


def test_json(run: Run) -> None:
    document = json.loads(run("gpus", "GTX 750 Ti", "--format", "json").stdout)
    assert document["schema"] == "fatpatch.gpus/1"
    first = document["gpus"][0]
    assert first["note"].startswith("the same name in a community list")
    del first["note"]
    assert first == {
        "vendor": "nvidia", "name": "GeForce GTX 750 Ti", "target": "sm_50", "generation": "Maxwell", "segment": "geforce", "chip": "GM107",
        "drivers": {"first": "340.21", "last": "580"}, "toolkits": {"first": "6.5", "last": "12.9", "newest_known": False},
    }  # fmt: skip
    everything = json.loads(run("gpus", "--format", "json").stdout)["gpus"]
    assert len(everything) > 850
    amd = next(gpu for gpu in everything if gpu["name"] == "Radeon RX 6800")
    assert (amd["target"], amd["drivers"], amd["toolkits"]) == ("gfx1030", None, None)


@pytest.mark.parametrize(
    ("text", "hint"), [("no such thing", "target, such as sm_61"), ("GTX 1066", "GTX 1060"), ("sm_99", "sm_90"), ("", "for example")]
)
def test_errors(run: Run, text: str, hint: str) -> None:
    done = run("gpus", text)
    assert (done.returncode, done.stdout) == (3, "")
    assert hint in done.stderr


def test_hostile_text(run: Run) -> None:
    done = run("gpus", "\x1b[31m evil")
    assert done.returncode == 3
    assert "\x1b" not in done.stderr


def test_the_tables_are_read_only_when_asked_for() -> None:
    code = "import sys; import fatpatch.gpus.devices, fatpatch.gpus.drivers, fatpatch.commands.gpus.command; print('csv' in sys.modules, 'difflib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_wheel_holds_the_tables(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    tables = ("nvidia_gpus", "amd_gpus", "amd_targets", "drivers", "toolkits", "errors")
    assert {f"fatpatch/gpus/data/{name}.csv" for name in tables} | {"fatpatch/gpus/data/README.md"} <= names
