"""A conda package as it is downloaded, and in an environment: the same verdicts as of the library alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders import elf
from builders.conda_package import conda_package, unpacked
from builders.cubin import cubin
from builders.environments import library, write
from builders.fatbin import container, entry
from conftest import SAMPLES, Run

from fatpatch.scan.walk import inspected
from fatpatch.verdicts.claims import contradiction

FILES = {
    "lib/libkernels.so": (SAMPLES / "libkernels.so").read_bytes(),
    "lib/libhipdemo.so": (SAMPLES / "libhipdemo.so").read_bytes(),
    "share/doc/kernels.txt": b"text\n" * 100,
}
GPUS = ("GTX 1060", "RTX 3060", "RTX 5090", "RX 6700 XT")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "kernels-1.2-h1_0.conda"
    path.write_bytes(conda_package("kernels", "1.2", "h1_0", FILES))
    return path


@pytest.fixture
def prefix(package: Path, tmp_path: Path) -> Path:
    """What conda makes of the package: its files, and a document of what it has put where."""
    files = unpacked(package.read_bytes())
    names = files["info/files"].decode().splitlines()
    document = {**json.loads(files["info/index.json"]), "files": names, "paths_data": json.loads(files["info/paths.json"])}
    write(tmp_path / "env", {name: files[name] for name in names})
    write(tmp_path / "env", {"conda-meta/kernels-1.2-h1_0.json": json.dumps(document).encode(), "conda-meta/history": b""})
    return tmp_path / "env"


def judged(run: Run, gpu: str, *what: object) -> tuple[int, list[tuple[str, str, int, str | None]], list[str]]:
    """(exit code, the module verdicts by library and offset, the outcomes)."""
    done = run("doctor", *what, "--gpu", gpu, "--format", "json")
    document: dict[str, Any] = json.loads(done.stdout)
    modules = [
        (module["locator"].split("!.")[0].rpartition("!")[2].rpartition("/")[2], module["verdict"], module["offset"], module["target"])
        for file in document["files"]
        for module in file["modules"]
    ]
    return done.returncode, sorted(modules), [file["outcome"] for file in document["files"]]


@pytest.mark.parametrize("gpu", GPUS)
def test_doctor_judges_the_package_as_the_environment_and_the_libraries(run: Run, package: Path, prefix: Path, gpu: str) -> None:
    alone = [judged(run, gpu, SAMPLES / name)[1] for name in ("libkernels.so", "libhipdemo.so")]
    code, modules, outcomes = judged(run, gpu, package)
    assert modules == sorted(module for each in alone for module in each)
    assert judged(run, gpu, prefix)[::2] == (code, outcomes)
    text = run("doctor", prefix, "--gpu", gpu).stdout
    assert not {"loaded", "0 distributions"} & {word for line in text.splitlines() for word in line.split("  ")}, "nothing to say of them"
    assert (code, outcomes) == ((1, ["will-not-run"]) if gpu.startswith("RX") else (0, ["runs"]))


def test_inspect_check_and_verify_of_the_package(run: Run, package: Path, tmp_path: Path) -> None:
    def images(path: Path) -> list[tuple[str, str]]:
        document = json.loads(run("inspect", path, "--format", "json").stdout)
        return sorted(_images(document["files"][0]))

    assert images(package) == sorted(image for name in ("libkernels.so", "libhipdemo.so") for image in images(SAMPLES / name))
    assert run("check", package, "--require", "sm_61").returncode == 0
    assert run("check", package, "--require", "sm_60").returncode == 1
    write(tmp_path / "two", {path: data for path, data in FILES.items() if path.startswith("lib/")})
    assert "ok      host files sound (2 files)" in run("verify", tmp_path / "two").stdout.splitlines()
    done = run("verify", package)
    assert (done.returncode, "is sound" in done.stdout) == (0, True)
    (tmp_path / "bad.conda").write_bytes(package.read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfc", 1))
    assert run("verify", tmp_path / "bad.conda").returncode == 1
    assert run("doctor", tmp_path / "bad.conda", "--gpu", "GTX 1060").returncode == 1


def _images(file: dict[str, Any]) -> list[tuple[str, str]]:
    own = [(image["target"], image["sha256"] or str(image["size"])) for module in file["payloads"] for image in module["images"]]
    return own + [image for member in file["members"] for image in _images(member)]


@pytest.mark.parametrize(
    ("build", "said"),
    [("cuda129_0", None), ("cuda130_0", None), ("cuda128_0", "the name says CUDA 12.8, but its code was compiled by CUDA 12.9, 13.0")],
)
def test_every_library_speaks_for_the_name(tmp_path: Path, build: str, said: str | None) -> None:
    """A package of libraries for several releases: many modules of one do not hide the other."""
    module = container(entry(cubin(arch=100, new=True), kind=2, major=1, minor=7, arch=100))
    files = {"lib/liba.so": elf.shared_object([(".nv_fatbin", module * 8)]), "lib/libb.so": library(90)}
    path = tmp_path / f"kernels-1.2-{build}.conda"
    path.write_bytes(conda_package("kernels", "1.2", build, files))
    with inspected(str(path)) as node:
        assert contradiction(node, path.name, 1 << 20) == said
