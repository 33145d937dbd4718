"""A real web server: with parts and without, throttled; a llamafile of 1 GB, of which next to nothing is fetched."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from io import RawIOBase
from pathlib import Path

import pytest
from builders import gguf
from conftest import SAMPLES, corpus_file

from fatpatch.base.limits import Fetched, Remote
from fatpatch.scan.walk import inspected

Run = Callable[..., "subprocess.CompletedProcess[str]"]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here")

CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location /plain/ {{ alias {files}/; }}
    location /whole/ {{ alias {files}/; max_ranges 0; }}
    location /slow/ {{ alias {files}/; limit_rate 400k; }}
    location /moved/ {{ return 302 /plain/$arg_file; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name in ("demo.llamafile", "libkernels.so"):
        shutil.copy(SAMPLES / name, folder)
    return folder


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=port, files=files))
    for path in (folder, files, *folder.parents):  # the worker of nginx is another user
        if path.owner() == Path(folder).owner() and len(path.parts) > 2:
            path.chmod(0o755)
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 0.1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("place", ["plain/{}", "whole/{}", "slow/{}", "moved/?file={}"])
def test_the_same_as_from_disk(run: Run, url: str, place: str) -> None:
    address = f"{url}/{place.format('libkernels.so')}"
    there = run("inspect", address, "--kernels", "--format", "ndjson")
    assert there.returncode == 0, there.stderr
    here = run("inspect", "libkernels.so", "--kernels", "--format", "ndjson")
    name = address.split("?")[0].rstrip("/").rpartition("/")[2]
    assert (
        there.stdout.replace(address.split("?")[0], "libkernels.so")
        .replace(f'"{name}!', '"libkernels.so!')
        .replace(f'"locator": "{name}"', '"locator": "libkernels.so"')
        == here.stdout
    )


class Sparse(RawIOBase):
    """Writes zeros as holes."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b")

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if data.count(0) != len(data):
            return self.file.write(data)
        self.file.seek(len(data), 1)
        return len(data)

    def finish(self) -> None:
        self.file.truncate(self.file.seek(0, 2))
        self.file.close()


@pytest.fixture(scope="module")
def gigabyte(files: Path) -> tuple[str, int]:
    """A llamafile-shaped zip: a real DLL, stored, and a model of 1 GB behind it. Its name, and the size of the DLL."""
    dll = corpus_file("win-x64-cuda/llama-addon.node")
    sink = Sparse(files / "large.llamafile")
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        archive.write(dll, "ggml-cuda.dll")
        with archive.open(zipfile.ZipInfo("model.gguf"), "w", force_zip64=True) as member:
            member.write(gguf.model())
            for _ in range(1024):
                member.write(bytes(1 << 20))
    sink.finish()
    return "large.llamafile", dll.stat().st_size


def fetched(address: str, *, everything: bool) -> tuple[Fetched, dict[str, int]]:
    """What looking at a file costs, with its kernels or without; and the kernels by target."""
    from fatpatch.base.limits import Limits
    from fatpatch.scan.survey import kernels

    told: list[Fetched] = []
    counts: dict[str, int] = {}
    with inspected(address, limits=Limits(remote=Remote(report=told.append))) as node:
        for member in node.members:
            for payload in member.payloads:
                for image in payload.images:
                    counts[image.target] = counts.get(image.target, 0)
        if everything:
            for image, found in kernels(node, jobs=2):
                counts[image.target] += len(found)
    return told[0], counts


@pytest.mark.corpus
def test_a_gigabyte_costs_little(url: str, gigabyte: tuple[str, int]) -> None:
    name, size = gigabyte
    cost, targets = fetched(f"{url}/plain/{name}", everything=False)
    assert set(targets) == {"sm_52", "sm_61", "sm_70", "compute_52", "compute_61", "compute_70"}
    assert cost.size > 1 << 30
    assert cost.fetched < 2_000_000, cost
    whole, counts = fetched(f"{url}/plain/{name}", everything=True)
    assert all(counts.values())
    assert whole.fetched < size * 1.05, whole


@pytest.mark.corpus
def test_it_is_told(run: Run, url: str, gigabyte: tuple[str, int]) -> None:
    done = run("inspect", f"{url}/plain/{gigabyte[0]}")
    assert re.search(r"^fetched [\d.]+ [kM]B of 1\.1 GB in \d+ requests: http", done.stderr, re.MULTILINE), done.stderr
