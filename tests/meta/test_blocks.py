"""Every shell block of README and docs runs, line by line, in a folder with the files that its lines name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from builders import container_image
from conftest import ROOT, SAMPLES

from fatpatch import commands as cli

PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SHELL = ("sh", "bash", "shell", "console")
_NOT_RUN = "not run: "
_RESULT = re.compile(r"(?:-o|-d|--output) (\S+)")


class Block(NamedTuple):
    """A fenced block: where it is, the comment in front of it, its language and text."""

    page: Path
    number: int
    comment: str
    language: str
    text: str


def blocks() -> list[Block]:
    found = []
    for page in PAGES:
        for number, (comment, language, text) in enumerate(_BLOCK.findall(page.read_text())):
            found.append(Block(page, number, comment, language, text))
    return found


SHELL = [block for block in blocks() if block.language in _SHELL]
RUN = [block for block in SHELL if block.language != "console" and "command" not in block.comment and _NOT_RUN not in block.comment]


def test_what_is_not_run_is_counted() -> None:
    """A new exception is a decision: it changes a number here."""
    assert Counter(block.comment for block in SHELL if block.comment) == {
        "main command": 1, "test command": 1,
        "not run: installs packages": 3, "not run: asks package indexes": 2, "not run: reads an installation": 1,
    }  # fmt: skip
    lines = [line for block in RUN for line in block.text.splitlines()]
    assert sum("://" in line for line in lines) == 5
    assert len([line for line in lines if line.startswith("fatpatch ")]) >= 50
    assert {block.language for block in blocks()} <= {"sh", "console", "dockerfile", "python", "toml", "yaml", "text", "json"}


def test_sessions_show_commands_and_output() -> None:
    """docs/generate.py --check compares the output of each; here only that none is left out of it."""
    sessions = [block for block in SHELL if block.language == "console"]
    assert len(sessions) >= 8
    for block in sessions:
        assert block.text.startswith("$ fatpatch "), block.page
        assert block.text.count("\n$ ") == 0, block.page


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages name, made of the samples; the environment is one with a package of GPU code."""
    shutil.copytree(SAMPLES, tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FATPATCH_GPU", "GTX 1060")
    wheel = next(SAMPLES.glob("*.whl"))
    for name in ("app.whl", "torch.whl", "x.whl", "WHEEL", "OLD.whl", "NEW.whl", "wheels/a.whl"):
        _copy(wheel, tmp_path / name)
    for name in ("libx.so", "libllama-cuda.so", "libfaiss.so", "libggml-cuda.so", "libnew.so", "libcublas.so.12", "dist/libx.so"):
        _copy(SAMPLES / "libkernels.so", tmp_path / name)
    for name in ("app.llamafile", "FILE", "NEW"):
        _copy(SAMPLES / "demo.llamafile", tmp_path / name)
    for name in ("old.dll", "OLD.dll", "OLD"):
        _copy(SAMPLES / "donor.dll", tmp_path / name)
    (tmp_path / "list.txt").write_text("libx.so\n")
    _environment(tmp_path / ".venv", SAMPLES / "libkernels.so")
    layer = container_image.layer([container_image.Entry("f", "usr/lib/libx.so", (SAMPLES / "libkernels.so").read_bytes())])
    for name in ("app.tar", "app-1.0.tar", "app-1.1.tar"):
        container_image.as_tar(container_image.docker_files([container_image.Image([layer], "none")]), tmp_path / name)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / ".venv"))
    return tmp_path


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    shutil.copy(source, target)


def _environment(folder: Path, library: Path) -> None:
    packages = folder / "lib/python3.12/site-packages"
    (packages / "bitsandbytes").mkdir(parents=True)
    (packages / "bitsandbytes-1.0.dist-info").mkdir()
    shutil.copy(library, packages / "bitsandbytes/libbitsandbytes_cuda126.so")
    (packages / "bitsandbytes-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: bitsandbytes\nVersion: 1.0\n")
    (packages / "bitsandbytes-1.0.dist-info/RECORD").write_text("bitsandbytes/libbitsandbytes_cuda126.so,,\n")
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "bin").mkdir()
    (folder / "bin/activate").write_text("true\n")
    (folder / "bin/python").touch()


def _prepare(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only some blocks need."""
    if "sm61.cubin" in block.text or "--retarget" in block.text:
        for name in ("libx.so", "libllama-cuda.so"):
            assert fatpatch(["prune", name, "--drop", "sm_61", "--in-place", "--no-undo"], monkeypatch) == 0
        shutil.copy("samples/kernels.sm_61.cubin", "sm61.cubin")
    if "FILE --cubin" in block.text:
        assert fatpatch(["extract", "samples/donor.so", "-d", "donor", "--target", "sm_61"], monkeypatch) == 0
        shutil.copy(next(Path("donor").glob("**/*.cubin")), "sm61.cubin")
    if "libfaiss.so" in block.text:
        assert fatpatch(["extract", "samples/demo.llamafile", "-d", "members", "--kind", "member"], monkeypatch) == 0
        shutil.copy(next(Path("members").glob("**/*ggml-cuda.so")), "libfaiss.so")
        shutil.copy("app.whl", "app.llamafile")  # an archive with code for the GPU that is kept
    if "extract FILE" in block.text:
        shutil.copy("samples/donor.dll", "FILE")
    if "with the policy found here" in block.text:
        Path("fatpatch.toml").write_text('require = ["sm_75"]\n')
    if "db merge" in block.text:
        for name in ("a", "b"):
            assert fatpatch(["audit", f"samples/donor.{'so' if name == 'a' else 'dll'}", "--db", f"{name}.sqlite"], monkeypatch) == 0
    if "query" in block.text:
        assert fatpatch(["audit", "wheels", "--db", "gpu.sqlite"], monkeypatch) == 0


def fatpatch(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command here, without the start of another interpreter."""
    monkeypatch.setattr(sys, "argv", ["fatpatch", *arguments])
    return cli.run()


@pytest.mark.parametrize("block", RUN, ids=lambda block: f"{block.page.relative_to(ROOT)}-{block.number}")
def test_block(block: Block, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Lines may be alternatives with the same output file: what an earlier line wrote there is removed."""
    _prepare(block, monkeypatch)
    for line in block.text.splitlines():
        if "://" in line or not line.strip():
            continue
        if not line.startswith("fatpatch "):
            done = subprocess.run(["bash", "-e", "-c", line], cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, (line, done.stderr)
            continue
        for name in _RESULT.findall(line.partition("  #")[0]):
            for path in folder.glob(f"{name}*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        words = shlex.split(
            line.replace("LOCATOR", "'*ggml-cuda.dll!*'").replace("pid:1234", f"pid:{os.getpid()}").replace("FILE...", "FILE"),
            comments=True,
        )
        code = fatpatch(words[1:], monkeypatch)
        output = capfd.readouterr()
        if code == 8 and os.environ.get("FATPATCH_REQUIRE_ORACLES") != "1":
            continue  # no ptxas 12.9 here
        assert code in (0, 1), (line, code, output.err)
        assert output.out or output.err, line
