"""Object stores and the rest, by fsspec: an S3 server in this process."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SAMPLES
from remote.server import serving

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
moto = pytest.importorskip("moto.server")

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket with the samples; the environment leads to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "s3cret"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        store = fsspec.filesystem("s3")
        store.mkdir("releases")
        for name in ("demo.llamafile", "libkernels.so", "kernels-1.0-py3-none-linux_x86_64.whl"):
            store.pipe(f"releases/{name}", (SAMPLES / name).read_bytes())
        yield "s3://releases"
    server.stop()


@pytest.mark.parametrize("name", ["demo.llamafile", "libkernels.so", "kernels-1.0-py3-none-linux_x86_64.whl"])
def test_the_same_as_from_disk(run: Run, bucket: str, name: str) -> None:
    there = run("inspect", f"{bucket}/{name}", "--kernels", "--format", "json")
    assert there.returncode == 0, there.stderr
    here = run("inspect", name, "--kernels", "--format", "json")
    assert json.loads(there.stdout.replace(f"{bucket}/", "")) == json.loads(here.stdout)
    assert f"{bucket}/{name}" in there.stderr
    assert "fetched" in there.stderr


def test_what_is_not_there(run: Run, bucket: str) -> None:
    for address in (f"{bucket}/none.whl", bucket, "s3://no-such-bucket/x"):
        done = run("inspect", address)
        assert done.returncode == 3
        assert "Traceback" not in done.stderr
        assert "s3cret" not in done.stderr


def test_a_member_of_a_remote_zip(run: Run) -> None:
    data = (SAMPLES / "kernels-1.0-py3-none-linux_x86_64.whl").read_bytes()
    with serving(data) as server:
        done = run("inspect", f"zip://kernels/libkernels.so::{server.url}/kernels.whl", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert {image["target"] for image in json.loads(done.stdout)["files"][0]["payloads"][0]["images"]} >= {"sm_61", "sm_120"}


def test_without_fsspec(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fsspec.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        ["python", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.argv = ['fatpatch', 'inspect', 's3://a/b']; from fatpatch.commands import main; main()"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 8
    assert "fatpatch[remote]" in done.stderr
