"""A Dask cluster of two worker processes: the same index, also when one of them is killed on the way."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from index.test_audit import library, rows

pytest.importorskip("distributed")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5"}


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:]]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


class Cluster:
    """A scheduler and two workers, each a process."""

    def __init__(self, folder: Path) -> None:
        self.scheduler = start("dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        assert self.scheduler.stderr is not None
        found = next(match for line in self.scheduler.stderr if (match := re.search(r"Scheduler at:\s+(tcp://\S+)", line)))
        self.address = found[1]
        options = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder))
        self.workers = [start("dask_worker", self.address, *options) for _ in range(2)]
        for process in (self.scheduler, *self.workers):
            threading.Thread(target=_drain, args=(process,), daemon=True).start()

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def _drain(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for _ in process.stderr:
        pass


def stored(index: Path) -> int:
    """How many files are in the index now."""
    try:
        with sqlite3.connect(f"file:{index}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM location").fetchone()[0])
    except sqlite3.Error:
        return 0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path / "scratch")
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(300):
        (folder / f"lib{index:03}.so").write_bytes(library(index))
    return folder


def test_the_same_index_though_a_worker_dies(run: Run, cluster: Cluster, many: Path, tmp_path: Path) -> None:
    assert run("audit", many, "--db", tmp_path / "here.sqlite", "-j", 2).returncode == 0

    killed_at: list[int] = []

    def kill() -> None:
        """When some files are in the index, and not yet all."""
        while (count := stored(tmp_path / "there.sqlite")) < 20:
            time.sleep(0.02)
        cluster.workers[0].send_signal(signal.SIGKILL)
        killed_at.append(count)

    killer = threading.Thread(target=kill)
    killer.start()
    done = run("audit", many, "--db", tmp_path / "there.sqlite", "--dask", cluster.address)
    killer.join()
    assert done.returncode == 0, done.stderr
    assert "300 read" in done.stderr
    assert killed_at[0] < 300
    assert rows(tmp_path / "there.sqlite") == rows(tmp_path / "here.sqlite")
    assert "0 read, 300 unchanged" in run("audit", many, "--db", tmp_path / "there.sqlite", "--dask", cluster.address).stderr


def test_no_scheduler(run: Run, many: Path, tmp_path: Path) -> None:
    for address in ("tcp://127.0.0.1:9", "nonsense"):
        done = run("audit", many, "--db", tmp_path / "x.sqlite", "--dask", address)
        assert done.returncode == 3, done.stderr
        assert "Traceback" not in done.stderr
