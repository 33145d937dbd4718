"""Temporary files of killed runs: those of processes that have ended go, others stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fatpatch.base.leftovers import prefix_for, remove_neighbours


def test_files_of_this_process_stay(tmp_path: Path) -> None:
    left = Path(prefix_for(str(tmp_path / "a.so")))
    (tmp_path / f"{left.name}x.tmp").touch()
    remove_neighbours(str(tmp_path / "a.so"))
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_files_of_a_process_that_ended_and_was_not_waited_for_go(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    for _ in range(500):
        if Path(f"/proc/{ended.pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
            break
        time.sleep(0.02)
    name = Path(prefix_for(str(tmp_path / "a.so"))).name.replace(f"-p{os.getpid()}-", f"-p{ended.pid}-")
    (tmp_path / f"{name}x.tmp").touch()
    (tmp_path / "other.tmp").touch()
    remove_neighbours(str(tmp_path / "a.so"))
    assert os.listdir(tmp_path) == ["other.tmp"]
    ended.wait()
