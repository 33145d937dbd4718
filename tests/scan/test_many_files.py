"""A folder with a million files is walked in bounded time and memory."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

import pytest
from builders.environments import library

from fatpatch.base.errors import InputError
from fatpatch.scan.distributions import installed


@pytest.mark.slow
def test_a_million_files(tmp_path: Path) -> None:
    for folder in range(1000):
        home = tmp_path / f"{folder:03}"
        home.mkdir()
        for name in range(1000):
            os.close(os.open(home / f"{name}.txt", os.O_CREAT | os.O_WRONLY))
    (tmp_path / "000/x.so").write_bytes(library(61))
    began = time.process_time()
    found = installed(str(tmp_path), "many")
    assert [each.files for each in found.distributions] == [("000/x.so",)]
    assert time.process_time() - began < 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 500_000, "kilobytes"


def test_too_many_libraries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fatpatch.scan.distributions.MAX_FILES", 10)
    for name in range(11):
        (tmp_path / f"{name}.so").touch()
    with pytest.raises(InputError, match="more than 10 libraries"):
        installed(str(tmp_path), "many")
