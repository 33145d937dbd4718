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
from conftest import ROOT, SAMPLES, Run
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
    assert check["run"].count('fatpatch" check') == 1, "one run for all formats"
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
    environment, install, *script = job["script"]
    assert (environment, install) == ("python3 -m venv .fatpatch", '.fatpatch/bin/pip install --quiet "$FATPATCH"')
    (dist / "fatpatch.toml").write_text(f'require = ["{require}"]\n')
    done = shell("\n".join(script).replace(".fatpatch/bin/", ""), dist)
    assert done.returncode == code, done.stdout + done.stderr
    suites = JUnitXml.fromfile(str(dist / job["artifacts"]["reports"]["junit"]))
    assert suites.failures == code


def test_one_run_writes_several_formats(run: Run, tmp_path: Path) -> None:
    sarif, junit, plain = tmp_path / "a.sarif", tmp_path / "b.xml", tmp_path / "c.txt"
    arguments = ["check", "donor.so", "--require", "sm_75", "--no-policy", "--report", f"sarif={sarif}", "--report", f"junit={junit}"]
    for _ in range(2):  # the second run replaces the reports of the first
        assert run(*arguments).returncode == 1
    assert json.loads(sarif.read_text())["runs"][0]["results"][0]["ruleId"] == "FP101"
    assert JUnitXml.fromfile(str(junit)).failures == 1
    plain.write_text("mine")
    done = run(*arguments[:5], "--report", f"text={plain}")
    assert (done.returncode, "exists already and is not a text report" in done.stderr, plain.read_text()) == (6, True, "mine")
    assert run(*arguments[:5], "--report", "html=x").returncode == 2


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with this tree as it is now, as a server would offer it."""
    folder = tmp_path_factory.mktemp("origin")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if name.startswith(("tests/", "docs/", "benchmarks/")) or not (ROOT / name).is_file():
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "tree"]):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], cwd=folder, check=True, capture_output=True)
    return folder


def offline(folder: Path) -> dict[str, str]:
    """pip and pre-commit build from the packages that are here: dependencies are those of this environment."""
    here = next(path for path in sys.path if path.endswith("site-packages"))
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # python3 is this one
        "PYTHONPATH": here,
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads 0 as: no isolation
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PRE_COMMIT_HOME": str(folder / "hooks"),
    }


@needs_bash
def test_gitlab_job_from_a_git_url(dist: Path, origin: Path) -> None:
    """The whole script of the job, with the installation."""
    (job,) = yaml.safe_load((ROOT / ".ci/gitlab-example.yml").read_text()).values()
    assert job["variables"]["FATPATCH"].startswith("git+https://")
    (dist / "fatpatch.toml").write_text('require = ["sm_99"]\n')
    variables = {**offline(dist), "FATPATCH": f"git+file://{origin}"}
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(job["script"])], cwd=dist, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no image for sm_99" in done.stdout
    assert JUnitXml.fromfile(str(dist / "fatpatch.xml")).failures == 1


def test_pre_commit_hook_from_a_git_url(dist: Path, origin: Path) -> None:
    pytest.importorskip("pre_commit")
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=origin, capture_output=True, text=True, check=True).stdout.strip()
    config = {"repos": [{"repo": f"file://{origin}", "rev": revision, "hooks": [{"id": "fatpatch-check"}]}]}
    (dist / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    (dist / "fatpatch.toml").write_text('require = ["sm_75"]\n')
    for words in (["init", "-q"], ["add", "-A"]):
        subprocess.run(["git", *words], cwd=dist, check=True, capture_output=True)
    command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
    done = subprocess.run(command, cwd=dist, env=offline(dist), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no image for sm_75" in done.stdout
    (dist / "fatpatch.toml").write_text('[[files]]\npattern = "*.so"\nrequire = ["sm_75"]\n')
    done = subprocess.run(command, cwd=dist, env=offline(dist), capture_output=True, text=True, check=False)
    assert (done.returncode, "Passed" in done.stdout) == (0, True), done.stdout + done.stderr
