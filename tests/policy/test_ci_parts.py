"""The CI parts do what they say: their commands are run here as a CI system would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, SAMPLES
from junitparser import JUnitXml

BIN = Path(sys.executable).parent
SHELL = shutil.which("bash")
needs_bash = pytest.mark.skipif(SHELL is None, reason="needs bash")


def shell(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script; the installation is left out, since this environment has it."""
    assert SHELL is not None
    script = "\n".join(line for line in script.splitlines() if "pip install" not in line)
    variables = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([SHELL, "-e", "-c", script], cwd=folder, env=variables, capture_output=True, text=True, check=False)


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    (tmp_path / "dist").mkdir()
    for name in ("libkernels.so", "hipdemo.dll"):
        shutil.copy(SAMPLES / name, tmp_path / "dist" / name)
    return tmp_path


@needs_bash
def test_github_action(dist: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    assert action["runs"]["using"] == "composite"
    install, check = action["runs"]["steps"]
    assert install["run"].splitlines() == [
        'python3 -m venv "$FATPATCH_ENVIRONMENT"',
        '"$FATPATCH_ENVIRONMENT/bin/pip" install --quiet "$FATPATCH_SOURCE"',
    ]
    here = {"FATPATCH_ENVIRONMENT": str(BIN.parent), "GITHUB_STEP_SUMMARY": str(dist / "summary.md")}
    used = set(re.findall(r"\$\{\{ inputs\.(\w+) \}\}", json.dumps(check["env"])))
    assert used == set(action["inputs"])
    good = shell(
        check["run"], dist, FATPATCH_FILES="dist", FATPATCH_ARGUMENTS="--require sm_75,gfx1030", FATPATCH_SARIF="out.sarif", **here
    )
    assert (good.returncode, good.stdout) == (0, "::notice title=fatpatch::2 files, 2 with GPU code: passed\n"), good.stderr
    assert "### fatpatch check: passed" in (dist / "summary.md").read_text()
    assert json.loads((dist / "out.sarif").read_text())["version"] == "2.1.0"
    bad = shell(check["run"], dist, FATPATCH_FILES="dist/*.dll", FATPATCH_ARGUMENTS="--require gfx1201", FATPATCH_SARIF="", **here)
    assert (bad.returncode, bad.stdout.startswith("::error file=dist/hipdemo.dll,title=FP101::")) == (1, True), bad.stdout


@needs_bash
def test_pre_commit_hook(dist: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "python"
    names = sorted(name for name in os.listdir(dist / "dist") if re.search(hook["files"], name))
    assert names == ["hipdemo.dll", "libkernels.so"]
    (dist / "fatpatch.toml").write_text('require = ["sm_75"]\n')
    assert shell(f"{hook['entry']} dist/libkernels.so", dist).returncode == 0
    assert shell(f"{hook['entry']} dist/hipdemo.dll", dist).returncode == 1


@needs_bash
@pytest.mark.parametrize(("require", "code"), [("sm_75", 0), ("sm_99", 1)])
def test_gitlab_job(require: str, code: int, dist: Path) -> None:
    (job,) = yaml.safe_load((ROOT / ".ci/gitlab-example.yml").read_text()).values()
    (dist / "fatpatch.toml").write_text(f'require = ["{require}"]\n')
    done = shell("\n".join(job["script"]), dist)
    assert done.returncode == code, done.stdout + done.stderr
    suites = JUnitXml.fromfile(str(dist / job["artifacts"]["reports"]["junit"]))
    assert suites.failures == code
