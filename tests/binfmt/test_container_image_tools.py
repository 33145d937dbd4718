"""Container images as Debian's tools make them: umoci builds the layers, skopeo copies them into other forms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from binfmt.test_container_image import CUBIN, LIBRARY, by_umoci, errors, seen
from builders.container_image import Entry, Image, as_tar, docker_files, layer
from conftest import ROOT, required

import fatpatch


def call(*command: object) -> None:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four layers that umoci made of what changed in a folder: libraries deleted, overwritten, hard-linked, moved and linked."""
    if shutil.which("umoci") is None or shutil.which("skopeo") is None:
        required("umoci and skopeo: apt-get install umoci skopeo")
    home = tmp_path_factory.mktemp("umoci")
    image = f"{home / 'layout'}:t"
    call("umoci", "init", "--layout", home / "layout")
    call("umoci", "new", "--image", image)
    steps = (_first, _second, _third, _fourth)
    for number, step in enumerate(steps):
        bundle = home / f"bundle{number}"
        call("umoci", "unpack", "--rootless", "--image", image, bundle)
        step(bundle / "rootfs")
        call("umoci", "repack", "--image", image, bundle)
    return home / "layout"


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _first(root: Path) -> None:
    for name in ("opt/lib/a.cubin", "opt/lib/b.cubin", "opt/old/c.cubin", "opt/old/deep/d.cubin", "usr/lib/e.cubin"):
        _write(root / name, CUBIN + name.encode())
    _write(root / "opt/lib/libk.so", LIBRARY)
    os.link(root / "opt/lib/libk.so", root / "opt/lib/libk.so.1")
    (root / "lib").symlink_to("usr/lib")


def _second(root: Path) -> None:
    (root / "opt/lib/b.cubin").unlink()
    _write(root / "opt/lib/a.cubin", CUBIN + b"second")
    shutil.rmtree(root / "opt/old")
    _write(root / "opt/old/again.cubin", CUBIN + b"again")


def _third(root: Path) -> None:
    (root / "opt/lib/libk.so").unlink()
    (root / "usr/lib/e.cubin").rename(root / "usr/lib/moved.cubin")
    (root / "opt/old/again.cubin").unlink()
    (root / "opt/old/again.cubin").mkdir()
    _write(root / "opt/old/again.cubin/inside.cubin", CUBIN + b"inside")


def _fourth(root: Path) -> None:
    os.link(root / "opt/lib/a.cubin", root / "opt/hard.cubin")
    (root / "lib").unlink()
    _write(root / "lib/f.cubin", CUBIN + b"f")


def test_what_umoci_built_is_what_it_unpacks(built: Path, tmp_path: Path) -> None:
    with fatpatch.open(built) as file:
        assert errors(file.node) == []
        assert file.node.image is not None
        assert len(file.node.image.layers) == 4
        assert seen(file.node) == by_umoci(built, tmp_path)


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_skopeo_copies_hold_the_same(built: Path, form: str, tmp_path: Path) -> None:
    target = f"{form}:{tmp_path / 'a.tar'}:app:1"
    call("skopeo", "copy", "--insecure-policy", f"oci:{built}:t", target)
    with fatpatch.open(built) as first, fatpatch.open(tmp_path / "a.tar") as second:
        assert errors(second.node) == []
        assert second.node.container == "container_image"
        assert seen(second.node) == seen(first.node)


# Large


LAUNCHER = """
import os, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, 64 << 20))
child = subprocess.Popen([sys.executable, "-m", "fatpatch", "inspect", sys.argv[1]])
_, status, usage = os.wait4(child.pid, 0)
sys.stderr.write(f"{usage.ru_maxrss // 1024}")
sys.exit(status != 0)
"""
"""A process of its own: what this one has in memory would count for its child."""


def limited(path: Path, megabytes: int) -> tuple[float, int, str]:
    """(seconds, peak memory in MB, output) of inspect in a process whose temporary files may take no more than 64 MB each."""
    start = time.perf_counter()
    command = [sys.executable, "-c", LAUNCHER, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    peak = int(done.stderr.split()[-1])
    assert peak < megabytes
    return time.perf_counter() - start, peak, done.stdout


def head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_20_gigabytes_of_weights_between_two_libraries(tmp_path: Path) -> None:
    """A sparse docker-archive with one plain layer."""
    big = 20 << 30
    parts = [
        head("a.so", len(LIBRARY)) + LIBRARY + bytes(-len(LIBRARY) % 512),
        head("weights.bin", big),
        head("b.so", len(LIBRARY)) + LIBRARY,
    ]
    inner = sum(map(len, parts)) + big + 1024
    inner += -inner % 512
    files = docker_files([Image([layer([])], "none")])
    path = tmp_path / "big.tar"
    with path.open("wb") as sink:
        for name, data in files.items():
            if not name.endswith("layer.tar"):
                sink.write(head(name, len(data)) + data + bytes(-len(data) % 512))
        sink.write(head(next(name for name in files if name.endswith("layer.tar")), inner))
        start = sink.tell()
        sink.write(parts[0] + parts[1])
        sink.seek(big, os.SEEK_CUR)
        sink.write(parts[2])
        sink.truncate(start + inner + 1024)
    assert path.stat().st_blocks * 512 < 1 << 20
    _, _, text = limited(path, 120)
    assert "/a.so" in text
    assert "/b.so" in text


@pytest.mark.slow
def test_a_million_entries(tmp_path: Path) -> None:
    """Over two layers, the second of which deletes half of them."""
    first = layer([Entry("f", f"d{number % 1000}/f{number}", b"") for number in range(600_000)])
    second = layer(
        [Entry("f", f"d{number}/.wh..wh..opq", b"") for number in range(500)] + [Entry("f", f"n{number}", b"") for number in range(400_000)]
    )
    path = as_tar(docker_files([Image([first, second])]), tmp_path / "a.tar")
    seconds, peak, _ = limited(path, 600)
    print(f"a million entries: {seconds:.0f} s, {peak} MB")


@pytest.mark.slow
def test_a_gzip_layer_of_a_gigabyte(tmp_path: Path) -> None:
    """Of weights that do not compress; nothing but the library is written to a temporary file."""
    chunk = os.urandom(64 << 20)
    entries = [Entry("f", f"w{number}.safetensors", (len(chunk) - 8).to_bytes(8, "little") + b'{"' + chunk[10:]) for number in range(16)]
    path = as_tar(docker_files([Image([layer([*entries, Entry("f", "libk.so", LIBRARY)])])]), tmp_path / "a.tar")
    seconds, peak, text = limited(path, 300)
    assert "/libk.so" in text
    print(f"a gzip layer of 1 GB: {seconds:.0f} s, {peak} MB")
