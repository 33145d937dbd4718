"""Ways to install: the source distribution carries what its tests need, and works where it is unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution of this tree, unpacked."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder)
    return next(path for path in folder.iterdir() if path.is_dir())


def test_the_sdist_has_what_its_tests_need(unpacked: Path) -> None:
    """Every file that git knows, and none that it does not."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    known = {name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()}
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    assert known - there == set()
    new = subprocess.run(["git", "ls-files", "-o", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert there - known - set(new.stdout.split("\0")) == {"PKG-INFO"}


def test_the_sdist_works_where_it_is_unpacked(unpacked: Path) -> None:
    """The command and some tests, with nothing of this checkout on the path."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, "-m", "fatpatch", "inspect", "samples/demo.llamafile"]
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "123 kernels" in done.stdout or "3 images" in done.stdout) == (0, True)
    tests = ["tests/meta/test_first_minutes.py", "tests/commands/test_help.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
