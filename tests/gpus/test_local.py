"""The driver of this machine: a stand-in for libcuda, AMD's topology files, and answers that make no sense."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import required

from fatpatch.base.errors import InputError
from fatpatch.gpus import local
from fatpatch.gpus.devices import Device

LIBRARY = r"""
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static const char *names[] = {"NVIDIA GeForce GTX 1060", "NVIDIA Something New"};
static const int numbers[][2] = {{6, 1}, {14, 2}};
int cuInit(unsigned f) {
    const char *mode = getenv("FAKE_CUDA");
    if (mode && !strcmp(mode, "crash")) abort();
    if (mode && !strcmp(mode, "hang")) sleep(60);
    return mode ? atoi(mode) : 0;
}
int cuDeviceGetCount(int *n) { *n = getenv("FAKE_NONE") ? 0 : 2; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, names[d], n); return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = numbers[d][a - 75]; return 0; }
"""


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the drivers of this machine nor its GPUs."""
    monkeypatch.setattr(local, "_KFD", str(tmp_path / "kfd"))
    monkeypatch.setattr(local, "_VERSION_FILE", str(tmp_path / "version"))
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def libcuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A libcuda.so.1 with two GPUs."""
    compiler = shutil.which("gcc", path="/usr/bin:/usr/local/bin:/bin")
    if compiler is None or sys.platform != "linux":
        required("gcc on Linux")
    (tmp_path / "cuda.c").write_text(LIBRARY)
    command = [str(compiler), "-shared", "-fPIC", "-o", str(tmp_path / "libcuda.so.1"), str(tmp_path / "cuda.c")]
    subprocess.run(command, check=True, env={"PATH": "/usr/bin:/bin"})
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))


@pytest.mark.usefixtures("libcuda")
def test_what_the_driver_tells() -> None:
    first, second = local.local_devices()
    assert first == Device("nvidia", "GeForce GTX 1060", "sm_61", 61, "geforce", "GP106", "")
    assert second[:6] == ("nvidia", "Something New", "sm_142", 142, "", None)
    assert "not in the tables" in second.note


@pytest.mark.usefixtures("libcuda")
@pytest.mark.parametrize(
    ("mode", "words"),
    [("100", "error 100: no CUDA-capable device is detected"), ("crash", "no answer"), ("803", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH")],
)
def test_a_driver_that_fails(mode: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA", mode)
    with pytest.raises(InputError, match=words) as caught:
        local.local_devices()
    assert "--gpu" in (caught.value.hint or "")


@pytest.mark.usefixtures("libcuda")
def test_a_driver_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA", "hang")
    monkeypatch.setattr(local, "_SECONDS", 1)
    with pytest.raises(InputError, match="no answer"):
        local.local_devices()


@pytest.mark.usefixtures("libcuda")
def test_a_driver_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_NONE", "1")
    with pytest.raises(InputError, match="knows no GPU"):
        local.local_devices()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("absent\n", "no GPU driver here"),
        ("", "knows no GPU"),
        ("gpu 6 1 zz\n", "knows no GPU"),
        ("gpu 999999999999 1 41\n", "knows no GPU"),
        ("gpu 6 1 414\n", "knows no GPU"),
        (None, "no answer"),
    ],
)
def test_answers(answer: str | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_run", lambda command: answer)
    with pytest.raises(InputError, match=words):
        local.local_devices()


def test_a_name_that_does_not_agree_with_its_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is believed, not the table."""
    monkeypatch.setattr(local, "_run", lambda command: f"gpu 8 9 {b'GeForce GTX 1060'.hex()}\r\ngpu 3 0 {b'GeForce GTX 750 Ti'.hex()}\n")
    first, second = local.local_devices()
    assert (first.target, first.chip) == ("sm_89", None)
    assert (second.target, second.chip) == ("sm_30", "GK106")


def node(folder: Path, number: int, text: str) -> None:
    path = folder / "kfd" / str(number)
    path.mkdir(parents=True)
    (path / "properties").write_text(text)


def test_amd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_run", lambda command: "absent\n")
    node(tmp_path, 0, "cpu_cores_count 16\ngfx_target_version 0\n")
    node(tmp_path, 1, f"simd_count 80\ngfx_target_version 100300\ndevice_id {0x73BF}\n")
    node(tmp_path, 2, f"gfx_target_version 90010\ndevice_id {0x740F}\n")
    node(tmp_path, 3, "gfx_target_version 110501\ndevice_id 1\n")
    node(tmp_path, 4, "gfx_target_version " + "9" * 5000 + "\n")
    first, second, third = local.local_devices()
    assert (first.target, first.chip) == ("gfx1030", "Navi 21")
    assert "names" in first.note  # one id, several products
    assert (second.name, second.target, second.note) == ("Instinct MI210", "gfx90a", "")
    assert (third.name, third.target) == ("gfx1151", "gfx1151")


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.154.05  Thu Dec 28 15:37:48 UTC 2023\nGCC version: 12\n", "535.154.05"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (x@y)  \nGCC version: gcc 15.3.0\n",
            "580.159.04",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.157  Wed\n", "390.157"),
        ("nonsense\n", None),
        ("", None),
    ],
)
def test_driver_version(text: str, version: str | None, tmp_path: Path) -> None:
    (tmp_path / "version").write_text(text)
    assert local.local_driver() == version


def test_driver_version_from_nvidia_smi(tmp_path: Path) -> None:
    assert local.local_driver() is None
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 552.22\necho 552.22\n")
    tool.chmod(0o755)
    assert local.local_driver() == "552.22"
    tool.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert local.local_driver() is None
