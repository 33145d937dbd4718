"""doctor, inspect, diff and check of container images: a row for each installed package, by RECORD and conda-meta."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from builders.container_image import Entry, Image, as_folder, as_tar, docker_files, layer, oci_files
from conftest import SAMPLES, Run

LIBRARY = (SAMPLES / "libkernels.so").read_bytes()
DONOR = (SAMPLES / "donor.so").read_bytes()
VENV = "opt/venv/lib/python3.11/site-packages"
SYSTEM = "usr/lib/python3/dist-packages"


def distribution(root: str, name: str, version: str, files: dict[str, bytes]) -> list[Entry]:
    """As pip installs it."""
    info = f"{root}/{name}-{version}.dist-info"
    record = "".join(f"{path},sha256=x,{len(data)}\n" for path, data in files.items()) + "../../../bin/tool,,\n"
    return [
        Entry("f", f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name.title()}\nVersion: {version}\n\nText".encode()),
        Entry("f", f"{info}/RECORD", record.encode()),
        *(Entry("f", f"{root}/{path}", data) for path, data in files.items()),
    ]


def conda(name: str, files: list[str]) -> Entry:
    document = {"name": name, "version": "2.0", "files": files}
    return Entry("f", f"opt/conda/conda-meta/{name}-2.0-0.json", json.dumps(document).encode())


LAYERS = [
    [*distribution(VENV, "alpha", "1.0", {"alpha/libk.so": LIBRARY}), *distribution(SYSTEM, "alpha", "0.9", {"alpha/libk.so": DONOR})],
    [
        *distribution(VENV, "torch", "2.5", {"torch/lib/libt.so": LIBRARY + b"t", "torch/version.py": b"cuda: str = '12.4'\n"}),
        *distribution(VENV, "plain", "3.0", {"plain/text.py": b"x = 1\n"}),
        conda("beta", ["lib/libbeta.so", "lib/python3.11/site-packages/gamma-1.dist-info/METADATA"]),
        Entry("f", "opt/conda/lib/libbeta.so", DONOR + b"b"),
        *distribution("opt/conda/lib/python3.11/site-packages", "gamma", "1", {"gamma/libg.so": DONOR + b"g"})[:2],
    ],
    [Entry("f", f"{SYSTEM}/.wh.alpha-0.9.dist-info"), Entry("f", "srv/app/libown.so", DONOR + b"own"), Entry("l", "srv/libx.so.1", "app/libown.so")],
]  # fmt: skip


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_tar(docker_files([Image([layer(each) for each in LAYERS])]), tmp_path_factory.mktemp("image") / "app.tar")


def test_a_row_for_each_package(run: Run, image: Path) -> None:
    """sm_61 is in both samples, sm_90 in one: what only the other one carries fails."""
    done = run("doctor", image, "--gpu", "sm_90", "--driver", "580.65")
    rows = {line.split("  ")[0]: line for line in done.stdout.splitlines()[2:]}
    assert done.stdout.startswith("WILL RUN IN PART: app.tar on ")
    assert "weakest link is beta 2.0" in " ".join(done.stdout.split())
    assert {"beta 2.0", "other files", "Alpha 1.0", "Torch 2.5"} <= set(rows)
    assert not any("0.9" in row or "Plain" in row or "Gamma" in row for row in rows)
    assert "WILL RUN" in rows["Alpha 1.0"]
    assert "WILL RUN" not in rows["other files"]
    assert done.returncode == 1


def test_the_rows_as_json(run: Run, image: Path) -> None:
    done = run("doctor", image, "--gpu", "sm_61", "--driver", "535", "--format", "json")
    files = {file["path"]: file for file in json.loads(done.stdout)["files"]}
    assert sorted(files) == ["Alpha 1.0", "Torch 2.5", "beta 2.0", "other files"]
    assert {file["outcome"] for file in files.values()} == {"runs"}
    (module,) = files["beta 2.0"]["modules"]
    assert module["locator"].startswith("app.tar!/opt/conda/lib/libbeta.so!")


def test_packages_in_the_listing(run: Run, image: Path) -> None:
    file = json.loads(run("inspect", image, "--format", "json").stdout)["files"][0]
    packages = [(each["name"], each["version"], each["root"]) for each in file["image"]["packages"]]
    assert packages == [
        ("Alpha", "1.0", f"/{VENV}"), ("beta", "2.0", "/opt/conda"), ("Plain", "3.0", f"/{VENV}"), ("Torch", "2.5", f"/{VENV}"),
    ]  # fmt: skip


def test_several_gpus_and_platforms(run: Run, tmp_path: Path) -> None:
    images = [Image([layer(each) for each in LAYERS], architecture=arch) for arch in ("amd64", "arm64")]
    layout = as_folder(oci_files(images), tmp_path / "layout")
    done = run("doctor", layout, "--gpu", "sm_61", "--gpu", "sm_90", "--driver", "535")
    assert "linux/amd64: beta 2.0" in done.stdout
    assert "linux/arm64: Torch 2.5" in done.stdout
    one = run("doctor", layout, "--gpu", "sm_61", "--driver", "535", "--platform", "linux/arm64")
    assert "linux/amd64" not in one.stdout
    assert one.returncode == 0


def test_diff_by_path(run: Run, tmp_path: Path, image: Path) -> None:
    """The same file system in other layers is the same; a library that a layer deletes is removed."""
    whole = as_tar(docker_files([Image([layer([entry for each in LAYERS for entry in each])], "none")]), tmp_path / "whole.tar")
    assert run("diff", image, whole).returncode == 0
    less = as_tar(docker_files([Image([*map(layer, LAYERS), layer([Entry("f", "srv/app/.wh.libown.so")])])]), tmp_path / "less.tar")
    done = run("diff", image, less, "--format", "json")
    assert done.returncode == 1
    (difference,) = json.loads(done.stdout)["files"]
    assert "/srv/app/libown.so" in json.dumps(difference)


def test_check(run: Run, image: Path) -> None:
    """A demand is held against every library that a container sees, and only those."""
    assert run("check", image, "--require", "sm_61").returncode == 0
    done = run("check", image, "--require", "sm_90")
    assert done.returncode == 1
    assert "/srv/app/libown.so" in done.stdout
    assert "/opt/venv" not in done.stdout


def test_audit_and_report(run: Run, image: Path, tmp_path: Path) -> None:
    done = run("audit", image, "--db", tmp_path / "i.db")
    assert done.returncode == 0, done.stderr
    assert run("report", image, "-o", tmp_path / "r.html").returncode == 0
    assert "/opt/conda/lib/libbeta.so" in (tmp_path / "r.html").read_text("utf-8")


def test_audit_of_a_layout_reads_it_again_when_its_index_changes(run: Run, tmp_path: Path) -> None:
    """The folder itself keeps its time when a blob and the index are written anew."""
    layout = as_folder(oci_files([Image([layer(LAYERS[0])])]), tmp_path / "layout")
    assert run("audit", layout, "--db", tmp_path / "i.db").returncode == 0
    again = run("audit", layout, "--db", tmp_path / "i.db")
    assert "1 unchanged" in again.stderr + again.stdout
    as_folder(oci_files([Image([layer(each) for each in LAYERS])]), layout)
    third = run("audit", layout, "--db", tmp_path / "i.db")
    assert "1 unchanged" not in third.stderr + third.stdout


def test_an_image_without_packages_is_judged_as_one_file(run: Run, tmp_path: Path) -> None:
    """There is nothing to tell apart, so the report says why and what to do."""
    path = as_tar(docker_files([Image([layer([Entry("f", "srv/app/libown.so", DONOR)])])]), tmp_path / "a.tar")
    done = run("doctor", path, "--gpu", "sm_90", "--driver", "580.65")
    assert "distribution" not in done.stdout
    assert "Do this" in done.stdout


def test_no_row_of_an_image_is_offered_as_a_name(run: Run, image: Path) -> None:
    """``fatpatch doctor torch`` would ask about this machine."""
    assert "Why: fatpatch doctor" not in run("doctor", image, "--gpu", "sm_90").stdout
