"""``doctor`` of an environment, a folder and an installed distribution."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import jsonschema
import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry
from conftest import ROOT, SAMPLES, Run

from fatpatch.scan.distributions import installed
from fatpatch.scan.environments import site_packages
from fatpatch.scan.ledgers import is_name

SCHEMA = json.loads((ROOT / "fatpatch/verdicts/doctor-2.schema.json").read_text())


def library(*archs: int, needed: bytes = b"") -> bytes:
    module = container(*(entry(cubin(arch=arch), kind=2, major=1, minor=7, arch=arch) for arch in archs))
    return elf.shared_object([(".nv_fatbin", module), (".dynstr", b"\0" + needed)])


def install(root: Path, name: str, version: str, files: dict[str, bytes], record: str | None = None) -> None:
    info = root / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n")
    (info / "RECORD").write_text(record if record is not None else "".join(f"{path},sha256=x,1\n" for path in files))
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    folder = tmp_path / "env"
    root = folder / "lib/python3.11/site-packages"
    alternatives = {f"bits/libbits_cuda{version}.so": library(61, 86) for version in ("118", "126", "128")}
    install(root, "bits", "0.49.2", alternatives)
    install(root, "new-kernels", "1.0", {"new_kernels/_C.so": library(90, needed=b"libcublas.so.12\0libcudart.so.12\0")})
    install(root, "nvidia-cublas-cu12", "12.6", {"nvidia/cublas/lib/libcublas.so.12": library(61, 86, 90)})
    install(root, "pure", "2.0", {"pure/__init__.py": b""})
    (root / "torch").mkdir()
    (root / "torch/version.py").write_text("__version__ = '2.8.0'\ncuda: Optional[str] = '12.6'\n")
    (folder / "pyvenv.cfg").write_text("home = /usr\n")
    return folder


def test_an_environment_is_one_row_a_distribution(run: Run, environment: Path) -> None:
    done = run("doctor", environment, "--gpu", "GTX 1060")
    assert done.returncode == 1
    *lines, command = done.stdout.splitlines()
    assert command.startswith("Why: fatpatch doctor new-kernels ")
    assert " ".join(lines[:2]).startswith("WILL RUN IN PART: ")
    assert "the weakest link is new-kernels 1.0: WILL NOT RUN" in " ".join(done.stdout.split())
    rows = {line.split("  ")[0]: line for line in lines if "  " in line.strip()}
    assert "libbits_cuda126.so" in rows["bits 0.49.2"], "the one for the CUDA release of the installed torch"
    assert "1 distribution without GPU code" in lines
    assert "libcudart.so.12 (pip install nvidia-cuda-runtime-cu12)" in " ".join(done.stdout.split())
    assert "libcublas.so.12" not in done.stdout.split("not installed:")[1], "another distribution has it"
    assert max(map(len, lines)) <= 80
    assert run("doctor", environment, "--gpu", "H100").returncode == 1
    assert run("doctor", environment / "lib/python3.11/site-packages", "--gpu", "GTX 1060").stdout.splitlines()[2:-1] == lines[2:]


def test_the_proposed_command_asks_for_the_weakest_link(
    run: Run, environment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the folder that was judged, not in the active environment; a group of files without a name is not proposed."""
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path))

    def proposed(folder: Path, gpu: str) -> list[str]:
        return [line for line in run("doctor", folder, "--gpu", gpu).stdout.splitlines() if line.startswith("Why: ")]

    (line,) = proposed(environment, "GTX 1060")
    assert line == f"Why: fatpatch doctor new-kernels --python {environment} --gpu sm_61"
    asked = run(*shlex.split(line.removeprefix("Why: fatpatch ")))
    assert (asked.returncode, asked.stdout.startswith("WILL NOT RUN: new-kernels 1.0")) == (1, True)
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    assert proposed(environment, "GTX 1060") == ["Why: fatpatch doctor new-kernels --gpu sm_61"]
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/a.so").write_bytes(library(90))
    assert proposed(tmp_path / "plain", "GTX 1060") == []


def test_a_distribution_by_its_name(run: Run, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    done = run("doctor", "New_Kernels", "--gpu", "H100")
    assert (done.returncode, done.stdout.startswith("WILL RUN: new-kernels 1.0 on H100")) == (0, True), done.stdout
    assert run("doctor", "--gpu", "GTX 1060").returncode == 1, "the active environment"
    wrong = run("doctor", "newkernel", "--gpu", "H100")
    assert (wrong.returncode, "did you mean new-kernels?" in wrong.stderr) == (3, True)


def test_json(run: Run, environment: Path) -> None:
    done = run("doctor", environment, "--gpu", "GTX 1060", "--format", "json")
    document = json.loads(done.stdout)
    jsonschema.validate(document, SCHEMA)
    assert {file["path"]: file["outcome"] for file in document["files"]} == {
        "bits 0.49.2": "runs",
        "new-kernels 1.0": "will-not-run",
        "nvidia-cublas-cu12 12.6": "runs",
    }


def test_a_folder_of_libraries(run: Run, tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs/a.so").write_bytes(library(61))
    (tmp_path / "libs/b.so").write_bytes(library(61))
    assert run("doctor", tmp_path / "libs", "--gpu", "GTX 1060").stdout.startswith("WILL RUN: ")
    (tmp_path / "empty").mkdir()
    assert run("doctor", tmp_path / "empty", "--gpu", "1060").stdout.startswith("NO GPU CODE: ")


def test_without_a_gpu_the_option_is_named(run: Run) -> None:
    done = run("doctor", SAMPLES / "libkernels.so")
    if done.returncode == 2:  # a machine without a driver
        assert "--gpu" in done.stderr


@pytest.mark.parametrize(
    "record",
    [
        "/etc/passwd.so,,\n../../../outside.so,,\nC:/x.dll,,\n..\\up.dll,,\n",
        "a.so" + ",x" * 5000 + "\n",
        '"unterminated\n',
        "\0\0\0\n",
        "missing.so,,\n",
    ],
)
def test_hostile_records(record: str, run: Run, tmp_path: Path) -> None:
    root = tmp_path / "site-packages"
    (tmp_path / "outside.so").write_bytes(library(61))
    install(root, "evil", "1", {"evil/a.so": library(61)}, record)
    done = run("doctor", root, "--gpu", "GTX 1060")
    assert done.returncode in (0, 1)
    assert "outside" not in done.stdout
    assert "Traceback" not in done.stderr


def test_links_out_of_the_folder_and_cycles(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "site-packages"
    (tmp_path / "outside.so").write_bytes(library(61))
    install(root, "linked", "1", {"linked/b.so": library(61)}, "linked/a.so,,\nlinked/b.so,,\nlinked/c.so,,\n")
    os.symlink(tmp_path / "outside.so", root / "linked/a.so")
    os.symlink("c.so", root / "linked/c.so")
    os.symlink(root, root / "linked/again")
    document = json.loads(run("doctor", root, "--gpu", "GTX 1060", "--format", "json").stdout)
    assert [len(file["modules"]) for file in document["files"]] == [1]


def test_names_and_places(tmp_path: Path) -> None:
    assert is_name("bitsandbytes")
    assert is_name("nvidia-cublas-cu12")
    assert not is_name("libx.so")
    assert not is_name("a/b")
    assert not is_name("-x")
    (tmp_path / "Lib/site-packages").mkdir(parents=True)
    assert site_packages(str(tmp_path)) == [str(tmp_path / "Lib/site-packages")]
    assert installed(str(tmp_path), "x").distributions == ()


def test_headers_and_kernels_agree(environment: Path) -> None:
    """What is judged by headers alone is what reading everything says."""
    from fatpatch.base.limits import Limits
    from fatpatch.gpus.devices import find
    from fatpatch.scan.distributions import opened
    from fatpatch.verdicts.environment import Environment
    from fatpatch.verdicts.header_doctor import HeaderDoctor
    from fatpatch.verdicts.judge import Doctor
    from fatpatch.verdicts.outcome import outcome_of
    from fatpatch.verdicts.quick import judged_quickly

    for distribution in installed(str(environment), "x").distributions:
        with opened(distribution, Limits()) as node:
            for gpu in ("GTX 1060", "RTX 3060", "H100", "RTX 5090", "RX 6700 XT"):
                asked = Environment(find(gpu))
                whole = outcome_of(Doctor(node, limit=1 << 29).judge(asked))
                assert outcome_of(HeaderDoctor(node, limit=1 << 29).judge(asked)) == whole
                assert outcome_of(judged_quickly(Doctor(node, limit=1 << 29), asked).found) == whole


def test_an_empty_folder_is_told(run: Run, tmp_path: Path) -> None:
    done = run("inspect", tmp_path)
    assert done.returncode == 0
    assert "no library, archive or image in this folder" in done.stderr
