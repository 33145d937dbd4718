"""``slim`` over environments, wheels and libraries: pip, hashlib and json look at the results; kill -9 at any moment loses nothing."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import jsonschema
import pytest
from builders.fatbin import container, entry
from conftest import ROOT, SAMPLES
from edit.elf_builder import Answer, Host, build, cubin, fatpatch

SCHEMA = json.loads((ROOT / "fatpatch/commands/slim/slim-1.schema.json").read_text())
GPU = "GTX 1080"


def images(*archs: int) -> bytes:
    return container(*(entry(cubin(SAMPLES, arch), kind=2, arch=arch, major=1, minor=7) for arch in archs))


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four libraries: found by a wrapper; by a table of its own; with code that refers to its fatbin; without code for the GPU."""
    folder = tmp_path_factory.mktemp("libraries")
    hidden = folder / "hidden.bin"
    hidden.write_bytes(images(61, 75) + images(75))
    table = f'.section .cask_resource,"a",@progbits\n.balign 16\n.incbin "{hidden}"\n'
    reader = '.section .text,"ax",@progbits\n.globl taker\ntaker: movl fatbin1-64(%rip), %eax\nret\n'
    hosts = (Host("plain"), Host("table", extra=table), Host("reader", modules=2, extra=reader), Host("other"))
    modules = [(images(61, 70, 75),), (images(61, 75),), (images(61, 70), images(61, 75)), (images(75),)]
    found = []
    for host, held in zip(hosts, modules, strict=True):
        (folder / host.name).mkdir()
        found.append(build(host, folder / host.name, held).rename(folder / f"lib{host.name}.so"))
    return found


def hashed(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def wheel(folder: Path, libraries: list[Path], name: str = "kernels", copies: int = 1) -> Path:
    """A wheel with the libraries, each so many times."""
    members = {f"{name}/__init__.py": b"ANSWER = 42\n"}
    for number in range(copies):
        members |= {f"{name}/{number}/{path.name}": path.read_bytes() for path in libraries}
    info = f"{name}-1.0.dist-info"
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n"
    rows = [f"{path},{hashed(data)},{len(data)}\n" for path, data in members.items()]
    members[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    path = folder / f"{name}-1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return path


def pip(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python, *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)


def environment(folder: Path, libraries: list[Path], copies: int = 1) -> tuple[Path, Path]:
    """An environment with a package as pip lays it out, and its site-packages."""
    site = folder / "env/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    with zipfile.ZipFile(wheel(folder, libraries, copies=copies)) as archive:
        archive.extractall(site)
    return folder / "env", site


def installed(folder: Path, libraries: list[Path]) -> tuple[Path, Path]:
    """The same by pip itself."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    found = pip(folder / "env/bin/python", "install", "--no-index", "--no-deps", wheel(folder, libraries))
    assert found.returncode == 0, found.stderr
    return folder / "env", next((folder / "env").glob("lib/python*/site-packages"))


def sums(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def wrong_rows(site: Path) -> list[str]:
    """The lines of RECORD that do not hold."""
    wrong = []
    for record in site.glob("*.dist-info/RECORD"):
        for path, digest, size in csv.reader(record.read_text().splitlines()):
            data = (site / path).read_bytes() if (site / path).is_file() else None
            if data is None or (digest and (digest != hashed(data) or int(size) != len(data))):
                wrong.append(path)
    return wrong


def slim(*arguments: object) -> Answer:
    answer = fatpatch("slim", *arguments)
    assert answer.code == 0, answer
    return answer


def test_an_environment(tmp_path: Path, libraries: list[Path]) -> None:
    env, site = environment(tmp_path, libraries)
    before = sums(env)
    os.link(site / "kernels/0/libplain.so", tmp_path / "in-the-cache.so")
    outside = tmp_path / "outside.so"
    outside.write_bytes(libraries[0].read_bytes())
    (site / "kernels/liblinked.so").symlink_to(outside)
    planned = slim(env, "--for", GPU, "--dry-run").out
    assert sums(env) == before
    assert "kernels 1.0" in planned
    assert "Turing (sm_75)" in planned
    told = slim(env, "--for", GPU, "--in-place", "-v").out
    assert "3/4" in told
    assert "nothing in it runs on GeForce GTX 1080" in told
    assert "is a link out of the folder" in told
    assert f"fatpatch undo {env}" in told
    assert "NVIDIA's licence" not in told
    assert (tmp_path / "in-the-cache.so").read_bytes() == outside.read_bytes() == libraries[0].read_bytes()
    assert (site / "kernels/0/libother.so").read_bytes() == libraries[3].read_bytes()
    for name in ("plain", "table", "reader"):
        found = json.loads(fatpatch("inspect", site / f"kernels/0/lib{name}.so", "--format", "json").out)["files"][0]
        assert set(found["summary"]["images_by_target"]) == {"sm_61"}
        assert fatpatch("verify", site / f"kernels/0/lib{name}.so").code == 0
    assert wrong_rows(site) == []
    again = slim(env, "--for", GPU, "--in-place").out
    assert "nothing to do" in again
    (site / "kernels/liblinked.so").unlink()
    assert fatpatch("undo", env).code == 0
    assert sums(env) == before
    assert fatpatch("undo", env).code == 6


def test_pip_uninstalls_all_of_it(tmp_path: Path, libraries: list[Path]) -> None:
    env, site = installed(tmp_path, libraries[:2])
    slim(env, "--for", GPU, "--in-place")
    assert pip(env / "bin/python", "check").returncode == 0
    assert pip(env / "bin/python", "uninstall", "-y", "kernels").returncode == 0
    assert list(site.rglob("*kernels*")) == []


def test_json_of_a_plan(tmp_path: Path, libraries: list[Path]) -> None:
    env, _ = environment(tmp_path, libraries)
    document = json.loads(slim(env, "--for", GPU, "--dry-run", "--format", "json").out)
    jsonschema.validate(document, SCHEMA)
    (package,) = document["packages"]
    assert [row["status"] for row in package["libraries"]].count("slimmed") == 3
    assert document["disk_after"] < document["disk_before"]
    assert "sm_75" in document["lost"]


def test_a_copy_of_an_environment(tmp_path: Path, libraries: list[Path]) -> None:
    env, site = environment(tmp_path, libraries)
    before = sums(env)
    slim(env, "--for", GPU, "-o", tmp_path / "copy")
    assert sums(env) == before
    assert wrong_rows(tmp_path / "copy" / site.relative_to(env)) == []
    assert not list((tmp_path / "copy").rglob("*.fatpatch-undo"))
    assert fatpatch("slim", env, "--for", GPU, "-o", tmp_path / "copy").code == 6


def test_a_wheel_that_pip_installs(tmp_path: Path, libraries: list[Path]) -> None:
    original = wheel(tmp_path, libraries)
    told = slim(original, "--for", GPU, "-o", tmp_path / "out").out
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == "kernels-1.0-0slim.sm_61-py3-none-linux_x86_64.whl"
    assert made.name in told
    assert made.stat().st_size < original.stat().st_size
    (tmp_path / "out" / original.name).write_bytes(original.read_bytes())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "env"], check=True)
    python = tmp_path / "env/bin/python"
    found = pip(python, "install", "--no-index", "--find-links", tmp_path / "out", "kernels==1.0")
    assert found.returncode == 0, found.stderr
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    assert wrong_rows(site) == []
    mark = json.loads((site / "kernels-1.0.dist-info/fatpatch-slim.json").read_text())
    assert mark["targets"] == ["sm_61"]
    assert "Build: 0slim.sm_61" in (site / "kernels-1.0.dist-info/WHEEL").read_text()
    assert set(
        json.loads(fatpatch("inspect", site / "kernels/0/libplain.so", "--format", "json").out)["files"][0]["summary"]["images_by_target"]
    ) == {"sm_61"}
    assert fatpatch("slim", original, "--for", GPU, "--in-place").code == 2


def test_a_folder_of_wheels(tmp_path: Path, libraries: list[Path]) -> None:
    (tmp_path / "in").mkdir()
    wheel(tmp_path / "in", libraries[:1], "first")
    unchanged = wheel(tmp_path / "in", libraries[3:], "second")
    slim(tmp_path / "in", "--for", GPU, "-o", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first-1.0-0slim.sm_61-py3-none-linux_x86_64.whl", unchanged.name]
    assert (tmp_path / "out" / unchanged.name).read_bytes() == unchanged.read_bytes()


def test_a_conda_environment(tmp_path: Path, libraries: list[Path]) -> None:
    """As conda installs it: hard links to the package cache, and a document with the hash of every file."""
    env, cache = tmp_path / "env", tmp_path / "pkgs"
    (env / "lib").mkdir(parents=True)
    (env / "conda-meta").mkdir()
    cache.mkdir()
    rows = []
    for path in libraries:
        (cache / path.name).write_bytes(path.read_bytes())
        os.link(cache / path.name, env / "lib" / path.name)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(
            {
                "_path": f"lib/{path.name}",
                "path_type": "hardlink",
                "sha256": digest,
                "sha256_in_prefix": digest,
                "size_in_bytes": path.stat().st_size,
            }
        )
    document = {
        "name": "kernels",
        "version": "1.0",
        "build": "0",
        "files": [row["_path"] for row in rows],
        "paths_data": {"paths": rows, "paths_version": 1},
    }
    meta = env / "conda-meta/kernels-1.0-0.json"
    meta.write_text(json.dumps(document, indent=2))
    before, cached = sums(env), sums(cache)
    slim(env, "--for", GPU, "--in-place")
    assert sums(cache) == cached
    now = json.loads(meta.read_text())
    for row, old in zip(now["paths_data"]["paths"], rows, strict=True):
        data = (env / row["_path"]).read_bytes()
        assert row["sha256_in_prefix"] == hashlib.sha256(data).hexdigest()
        assert row["size_in_bytes"] == len(data)
        assert row["sha256"] == old["sha256"]
    assert now | {"paths_data": 0} == document | {"paths_data": 0}
    assert fatpatch("undo", env).code == 0
    assert sums(env) == before


def test_one_library(tmp_path: Path, libraries: list[Path]) -> None:
    path = tmp_path / "libtable.so"
    path.write_bytes(libraries[1].read_bytes())
    slim(path, "--for", GPU, "-o", tmp_path / "out.so")
    assert path.read_bytes() == libraries[1].read_bytes()
    slim(path, "--for", GPU, "--in-place")
    assert path.read_bytes() == (tmp_path / "out.so").read_bytes()
    assert fatpatch("undo", path).code == 0
    assert path.read_bytes() == libraries[1].read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_library_in_use_is_left_alone(tmp_path: Path, libraries: list[Path]) -> None:
    import mmap

    env, site = environment(tmp_path, libraries[:2])
    with (site / "kernels/0/libplain.so").open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ):
        told = slim(env, "--for", GPU, "--in-place").out
    assert "a running process uses it" in told
    assert (site / "kernels/0/libplain.so").read_bytes() == libraries[0].read_bytes()
    assert wrong_rows(site) == []


def test_wrong_words(tmp_path: Path, libraries: list[Path]) -> None:
    assert fatpatch("slim", tmp_path, "--dry-run").code == 2
    assert fatpatch("slim", tmp_path, "--for", GPU).code == 2
    assert fatpatch("slim", tmp_path / "nothing", "--for", GPU, "--dry-run").code == 3
    assert fatpatch("slim", libraries[0], "--recompress", "zstd", "--driver", "470.57", "--dry-run").code == 2
    assert fatpatch("slim", libraries[0], "--for", "GTX 99999", "--dry-run").code == 2
    (tmp_path / "fatpatch-slim.json").write_text(
        json.dumps({"schema": "fatpatch.slim-state/1", "request": "", "files": ["../x"], "ledgers": [], "marks": [], "done": False})
    )
    assert fatpatch("undo", tmp_path).code == 4


def without_temporaries(found: dict[str, str]) -> dict[str, str]:
    """What a killed process was writing goes with the next run or undo."""
    return {path: digest for path, digest in found.items() if not path.rpartition("/")[2].startswith(".fatpatch-")}


def _killed(tmp_path: Path, libraries: list[Path], places: int, copies: int = 2) -> None:
    """Kill a run at random moments; RECORD is always whole, the same command goes on, and undo gives every old byte back."""
    env, site = environment(tmp_path, libraries, copies=copies)
    before = sums(env)
    record = site / "kernels-1.0.dist-info/RECORD"
    old = record.read_bytes()
    command = [sys.executable, "-m", "fatpatch", "slim", str(env), "--for", GPU, "--in-place", "--jobs", "2"]
    start = time.monotonic()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    whole = time.monotonic() - start
    after, new = sums(env), record.read_bytes()
    assert wrong_rows(site) == []
    dice = random.Random(7)
    for number in range(places):
        if number % 3:  # sometimes a run goes on where the one before was cut off
            assert fatpatch("undo", env).code == 0
            assert without_temporaries(sums(env)) == before
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(dice.uniform(whole / 4, whole))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _wait_for_workers(env)
        assert record.read_bytes() in (old, new)
        if not (env / "fatpatch-slim.json").exists():
            assert without_temporaries(sums(env)) == before
            assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert wrong_rows(site) == []
    assert {path: digest for path, digest in sums(env).items() if path.endswith((".so", "RECORD"))} == {
        path: digest for path, digest in after.items() if path.endswith((".so", "RECORD"))
    }
    assert fatpatch("undo", env).code == 0
    assert sums(env) == before


def _wait_for_workers(folder: Path) -> None:
    """Until no killed process holds the lock of the folder any more."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_killed_in_some_places(tmp_path: Path, libraries: list[Path]) -> None:
    _killed(tmp_path, libraries[:2], 8)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_killed_in_many_places(tmp_path: Path, libraries: list[Path]) -> None:
    """30 libraries."""
    _killed(tmp_path, libraries[:3], 200, copies=10)


def test_recompression_gains_or_changes_nothing(tmp_path: Path, libraries: list[Path]) -> None:
    """What was removed before stays removed where recompression is refused; a plan is no smaller than the result is."""
    env, site = environment(tmp_path, libraries)
    more = ("--recompress", "zstd", "--driver", "580.65.06", "--format", "json")
    alone = json.loads(slim(env, "--for", GPU, "--dry-run", "--format", "json").out)
    planned, done = (json.loads(slim(env, "--for", GPU, *more, how).out) for how in ("--dry-run", "--in-place"))
    rows = [{row["path"]: row for row in document["packages"][0]["libraries"]} for document in (alone, planned, done)]
    for path, row in rows[0].items():
        assert rows[1][path]["status"] == rows[2][path]["status"] == row["status"]
        assert rows[2][path]["disk_after"] <= row["disk_after"] + 4096
        assert rows[1][path]["code_after"] == rows[2][path]["code_after"] <= row["code_after"]
    assert wrong_rows(site) == []


def test_a_trace_warns_and_removes_nothing(tmp_path: Path) -> None:
    """In the sample, only_new is missing from sm_61 and in sm_75."""
    path, trace = tmp_path / "libkernels.so", tmp_path / "trace"
    path.write_bytes((SAMPLES / "libkernels.so").read_bytes())
    trace.write_text("# as CUPTI lists them\nonly_new\nreverse\n_Z6gatherIdEvPT_PKS0_3Bighd\nnowhere\n")
    plain = json.loads(slim(path, "--for", GPU, "--dry-run", "--format", "json").out)
    document = json.loads(slim(path, "--for", GPU, "--check", trace, "--dry-run", "--format", "json").out)
    jsonschema.validate(document, SCHEMA)
    (row,) = document["packages"][0]["libraries"]
    assert row["lost_kernels"] == ["only_new"]
    assert document["trace"] == {"kernels": 4, "unknown": ["nowhere"]}
    assert row["code_after"] == plain["packages"][0]["libraries"][0]["code_after"]
    told = slim(path, "--for", GPU, "--check", trace, "--in-place").out
    assert "warning: libkernels.so: only removed code holds only_new, which the run loaded" in told
    assert "2 of 4 kernels of the run stay; 1 are in no library here" in told
    assert "only_new" not in slim(SAMPLES / "libkernels.so", "--for", "T4", "--check", trace, "--dry-run").out
    assert fatpatch("slim", path, "--for", GPU, "--check", tmp_path / "none", "--dry-run").code == 3


def test_alternatives_are_offered_by_name(tmp_path: Path, libraries: list[Path]) -> None:
    env, site = environment(tmp_path, libraries[:1])
    (site / "torch").mkdir()
    (site / "torch/version.py").write_text("cuda: Optional[str] = '13.0'\n")
    for release in ("118", "126", "130"):
        (site / f"kernels/libkernels_cuda{release}.so").write_bytes(libraries[0].read_bytes())
    told = slim(env, "--for", GPU, "--in-place").out
    assert "not taken: " in told
    offer = next(line for line in told.splitlines() if line.startswith("not taken: "))
    assert "libkernels_cuda118.so" in offer
    assert "libkernels_cuda126.so" in offer
    assert "load libkernels_cuda130.so" in offer
    assert all((site / f"kernels/libkernels_cuda{release}.so").exists() for release in ("118", "126", "130"))


def test_what_further_options_save(tmp_path: Path) -> None:
    """Code for link-time optimization is counted, and goes when that is asked for."""
    code = container(entry(cubin(SAMPLES, 61), kind=2, arch=61, major=1, minor=7), entry(b"LTO" * 4000, kind=8, arch=75))
    path = build(Host("lto"), tmp_path, (code,))
    told = slim(path, "--for", GPU, "--dry-run").out
    assert "--strip-lto would also remove 12.0 kB of code for link-time optimization" in told
    assert "link it at run time" not in told
    linking = build(Host("linking", extra='.section .lrodata,"a",@progbits\n.asciz "__nvJitLinkCreate"\n'), tmp_path, (code,))
    assert "needs it: they link it at run time" in slim(linking, "--for", GPU, "--dry-run").out
    told = slim(path, "--for", GPU, "--strip-lto", "--recompress", "zstd", "--driver", "580.65.06", "-o", tmp_path / "out.so").out
    assert "--strip-lto removes 12.0 kB" in told
    assert "--recompress zstd saves " in told
    found = json.loads(fatpatch("inspect", tmp_path / "out.so", "--format", "json").out)["files"][0]
    assert set(found["summary"]["images_by_target"]) == {"sm_61"}


def test_a_llamafile(tmp_path: Path) -> None:
    """Both libraries in it are slimmed, the model stays where it was, and unzip reads it."""
    path, out = SAMPLES / "demo.llamafile", tmp_path / "out.llamafile"
    told = slim(path, "--for", GPU, "-o", out).out
    assert "1 library with device code takes" in told
    assert "note: llamafile " in told
    assert out.stat().st_size < path.stat().st_size
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out) as new:
        assert new.testzip() is None
        assert new.namelist() == old.namelist()
        differing = {name for name in old.namelist() if old.read(name) != new.read(name)}
        assert differing == {"ggml-cuda.dll", "ggml-cuda.so"}
    found = json.loads(fatpatch("inspect", out, "--format", "json").out)["files"][0]
    assert found["summary"]["images_by_target"] == {"sm_60": 2}
    slim(out, "--for", GPU, "--in-place")
    assert os.access(out, os.X_OK)
