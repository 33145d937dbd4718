"""Folders below a folder: as os.walk gives them."""

from __future__ import annotations

import os
from pathlib import Path

from fatpatch.base.folders import folders_below


def test_as_os_walk(tmp_path: Path) -> None:
    for path in ("b/c/1.so", "b/c-d/2.so", "b/3.so", "a/4.so", "a.x/5.so", "6.so"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "empty").mkdir()
    os.symlink(tmp_path / "b", tmp_path / "a/linked")
    os.symlink(tmp_path / "6.so", tmp_path / "a/linked.so")
    os.symlink("nowhere", tmp_path / "a/broken.so")
    expected = []
    for folder, folders, files in os.walk(tmp_path):
        folders.sort()
        below = os.path.relpath(folder, tmp_path).replace(os.sep, "/")
        expected.append(("" if below == "." else f"{below}/", folder, list(folders), sorted(files)))
    found = [(each.below, each.path, each.folders, sorted(each.files)) for each in folders_below(str(tmp_path))]
    assert found == expected
    assert [each[0] for each in found] == ["", "a/", "a.x/", "b/", "b/c/", "b/c-d/", "empty/"]
    assert next(folders_below(str(tmp_path / "none"))).files == []
