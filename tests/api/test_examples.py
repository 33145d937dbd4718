"""The examples of docs/python.md run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

import fatpatch

EXAMPLES = re.findall(r"<!-- example -->\n```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)


def test_there_are_five() -> None:
    assert len(EXAMPLES) == 5
    assert all(len(example.splitlines()) == 5 for example in EXAMPLES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[number], "docs/python.md", "exec"), {"fatpatch": fatpatch})
