"""Shared fixtures: samples, the oracle, the corpus, and the command line run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forked import Commands

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "samples"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def required(reason: str) -> None:
    """Skip, or fail where CI demands that nothing is skipped."""
    if os.environ.get("FATPATCH_REQUIRE_ORACLES") == "1":
        pytest.fail(f"required here: {reason}")
    pytest.skip(reason)


@pytest.fixture
def samples() -> Path:
    return SAMPLES


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run ``fatpatch ARGS`` in a process of its own, in the sample folder unless told otherwise."""
    forks = sys.platform == "linux" and "COVERAGE_PROCESS_START" not in os.environ
    commands = Commands(ROOT, tmp_path_factory.mktemp("streams")) if forks else None

    def call(*args: object, cwd: Path = SAMPLES) -> subprocess.CompletedProcess[str]:
        words = [str(arg) for arg in args]
        if commands is not None:
            return commands.run(words, cwd, 120)
        command = [sys.executable, "-m", "fatpatch", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)

    yield call
    if commands is not None:
        commands.close()


@pytest.fixture(scope="session")
def oracle() -> Path:
    """cuobjdump 13.5 of the [oracle] extra."""
    for folder in sys.path:
        path = Path(folder) / "nvidia/cu13/bin/cuobjdump"
        if path.is_file():
            return path
    required("cuobjdump: pip install -e '.[oracle]'")
    raise AssertionError


@pytest.fixture(scope="session")
def ptxas() -> Path:
    """ptxas 12.9 of the [oracle] extra."""
    for folder in sys.path:
        path = Path(folder) / "nvidia/cuda_nvcc/bin/ptxas"
        if path.is_file():
            return path
    required("ptxas: pip install -e '.[oracle]'")
    raise AssertionError


def corpus_rows() -> list[dict[str, object]]:
    """The rows of the corpus manifest; none where there is no corpus."""
    manifest = Path(os.environ.get("FATPATCH_CORPUS_MANIFEST", ROOT.parent / "shared/corpus/corpus.json"))
    return json.loads(manifest.read_text())["files"] if manifest.is_file() else []


def corpus_path(row: dict[str, object]) -> Path:
    """Where fetch.py puts a file; skips when it is not there."""
    home = Path(os.environ.get("FATPATCH_CORPUS") or Path.home() / ".cache/fatpatch-corpus")
    package = str(row["package"]).replace("/", "_").replace("==", "@")
    path = home / f"{package}-{row['platform']}" / str(row["member"])
    if not path.is_file():
        required(f"corpus file {row['member']}")
    return path


def corpus_file(ending: str) -> Path:
    """The file of the corpus whose name ends so; skips where there is none."""
    row = next((row for row in corpus_rows() if str(row["member"]).endswith(ending)), None)
    if row is None:
        required(f"corpus row of {ending}")
        raise AssertionError
    return corpus_path(row)
