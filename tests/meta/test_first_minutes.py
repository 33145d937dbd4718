"""What a newcomer does first, from the README: a verdict, a repaired demo, a policy that fails and then passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLES, Run


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(SAMPLES, tmp_path / "samples")
    return tmp_path


def test_the_demo_is_repaired_whole(run: Run, checkout: Path) -> None:
    """Both libraries, for Linux and for Windows; with one of them the verdict would stay bad."""
    graft = ["graft", "samples/demo.llamafile", "--from", "samples/donor.dll", "--target", "sm_61"]
    assert run("doctor", "samples/demo.llamafile", "--gpu", "GTX 1060", cwd=checkout).returncode == 1
    half = run(*graft, "-o", "half.llamafile", cwd=checkout)
    assert "use --member '*' for all members" in half.stdout
    part = run("doctor", "half.llamafile", "--gpu", "GTX 1060", cwd=checkout)
    assert part.stdout.startswith("WILL RUN IN PART")
    assert "Matrices in Q8_0 do not work on this GPU; those in F16, F32 do." in part.stdout
    assert run(*graft, "--member", "*", "-o", "whole.llamafile", cwd=checkout).returncode == 0
    whole = run("doctor", "whole.llamafile", "--gpu", "GTX 1060", cwd=checkout)
    assert (whole.returncode, whole.stdout.startswith("WILL RUN: ")) == (0, True)
    assert run("verify", "whole.llamafile", cwd=checkout).returncode == 0
    assert run("undo", "whole.llamafile", cwd=checkout).returncode == 0
    assert (checkout / "whole.llamafile").read_bytes() == (SAMPLES / "demo.llamafile").read_bytes()


def test_a_policy_fails_and_then_passes(run: Run, checkout: Path) -> None:
    (checkout / "dist").mkdir()
    shutil.copy(SAMPLES / "libkernels.so", checkout / "dist")
    assert run("check", "--init", "dist", cwd=checkout).returncode == 0
    assert run("check", "dist", cwd=checkout).returncode == 0
    policy = checkout / "fatpatch.toml"
    policy.write_text(policy.read_text().replace('require = ["sm_50"', 'require = ["sm_86", "sm_50"'))
    failed = run("check", "dist", cwd=checkout)
    assert failed.returncode == 1
    assert "no image for sm_86" in failed.stdout
    policy.write_text(policy.read_text().replace('"sm_86", ', ""))
    assert run("check", "dist", cwd=checkout).returncode == 0


def test_the_readme_says_how_the_command_is_found() -> None:
    """The examples call ``fatpatch`` alone, which only an active environment or pipx offers."""
    text = (ROOT / "README.md").read_text()
    assert 0 < text.index(". .venv/bin/activate") < text.index("\nfatpatch doctor")
