"""AMD code in real shipped binaries: grafted, read back by LLVM's tools, undone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Run, corpus_file
from oracle import llvm

from fatpatch.gpucode.content import ImageReader
from fatpatch.scan.walk import inspected

pytestmark = pytest.mark.corpus
FILES = ("libbitsandbytes_rocm64.so", "libbitsandbytes_rocm71.so", "_scatter_cuda.so")


@pytest.mark.parametrize("name", FILES)
def test_retag_and_undo(name: str, run: Run, tmp_path: Path) -> None:
    """Every bundle gets a copy; all old objects stay; the bundler lists the new id; undo gives the old bytes."""
    original = corpus_file(name)
    path = tmp_path / name
    shutil.copyfile(original, path)
    done = run("graft", path, "--retag", "gfx1030:gfx1034", "--in-place")
    assert (done.returncode, done.stderr) == (0, "")
    bundler = llvm.tool("clang-offload-bundler")
    with inspected(str(original)) as old, inspected(str(path)) as new:
        before, after = ImageReader(old.source, 1 << 28), ImageReader(new.source, 1 << 28)
        olds = {(image.identifier, before.read(image)) for payload in old.payloads for image in payload.images}
        news = {(image.identifier, after.read(image)) for payload in new.payloads for image in payload.images}
        assert olds < news
        assert len(new.payloads) == len(old.payloads)
        assert [len(payload.images) for payload in new.payloads] == [len(old.payloads[0].images) + 1] * len(new.payloads)
        assert all(payload.wrapper is not None for payload in new.payloads)
        for payload in new.payloads if bundler is not None and "llvm-22" in bundler else ():
            (tmp_path / "bundle").write_bytes(new.source.read(payload.offset, payload.size))
            command = [bundler, "--list", "--type=o", f"--input={tmp_path / 'bundle'}"]
            listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            assert sorted(each for each in listed if "host" not in each) == sorted(image.identifier for image in payload.images)
    assert run("verify", path).returncode == 0
    assert run("doctor", path, "--gpu", "gfx1034").returncode == 0
    assert run("doctor", original, "--gpu", "gfx1034").returncode == 1
    assert run("undo", path).returncode == 0
    assert path.read_bytes() == original.read_bytes()
