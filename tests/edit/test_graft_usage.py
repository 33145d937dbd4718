"""The command line of ``graft``: usage errors, where the result goes, and files that are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fatpatch.commands import run as run_command

FIXTURES = Path(__file__).parent / "fixtures"
Done = subprocess.CompletedProcess
Graft = Callable[..., Done]


def data(name: str) -> bytes:
    return (FIXTURES / name).read_bytes()


A_90 = data("a.sm_90.cubin")


@pytest.fixture
def graft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Graft:
    """``fatpatch graft ARGS`` in a folder with all fixtures, in this process: one of its own takes longer than the work."""
    for path in FIXTURES.iterdir():
        if path.is_file():
            os.symlink(path, tmp_path / path.name)
    (tmp_path / "libab.so").unlink()
    (tmp_path / "libab.so").write_bytes(data("libab.so"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["fatpatch", "graft", *map(str, arguments)])
        return Done(arguments, run_command(), *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("libab.so", "--dry-run"), "give an image"),
        (("libab.so", "--from", "a.fatbin", "--dry-run"), "--from and --target go together"),
        (("libab.so", "--target", "sm_90", "--cubin", "a.sm_90.cubin", "--dry-run"), "--from and --target go together"),
        (("libab.so", "--cubin", "a.sm_90.cubin"), "name the output"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out.so", "--in-place"), "exclude each other"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "-o", "libab.so"), "use --in-place"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "-o", "./libab.so", "--overwrite"), "use --in-place"),
        (("--cubin", "a.sm_90.cubin", "--dry-run"), "Missing argument"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "--compress", "rar", "--dry-run"), "rar"),
        (("libab.so", "--cubin", "a.sm_90.cubin", "--driver", "newest", "--dry-run"), "newest"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_usage_errors(arguments: tuple[str, ...], words: str, graft: Graft, tmp_path: Path) -> None:
    before = sorted(os.listdir(tmp_path))
    done = graft(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "libab.so").read_bytes() == data("libab.so")


@pytest.mark.parametrize("way", ["absolute", "real", "link"])
def test_output_that_names_the_file_itself(way: str, graft: Graft, tmp_path: Path) -> None:
    """However it is spelt: the file is changed only where --in-place says so."""
    (tmp_path / "link.so").symlink_to("libab.so")
    name = {"absolute": str(tmp_path / "libab.so"), "real": os.path.realpath("libab.so"), "link": "link.so"}[way]
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", name, "--overwrite")
    assert (tmp_path / "libab.so").read_bytes() == data("libab.so")
    assert done.returncode == 2
    assert "--in-place" in done.stderr


def test_output_that_exists(graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "out.so").write_bytes(b"precious")
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out.so")
    assert done.returncode == 6
    assert "out.so: exists already" in done.stderr
    assert "--overwrite" in done.stderr
    assert (tmp_path / "out.so").read_bytes() == b"precious"
    assert graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out.so", "--overwrite").returncode == 0
    assert A_90 in (tmp_path / "out.so").read_bytes()
    assert (tmp_path / "libab.so").read_bytes() == data("libab.so")


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
def test_output_that_is_a_folder(overwrite: tuple[str, ...], graft: Graft, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = graft("libab.so", "--cubin", "a.sm_90.cubin", "-o", "out", *overwrite)
    assert done.returncode in (2, 3, 6)
    assert "Traceback" not in done.stderr
    assert not os.listdir(tmp_path / "out")
    assert not [name for name in os.listdir(tmp_path) if "undo" in name or name.startswith(".")]


def test_missing_files(graft: Graft) -> None:
    done = graft("absent.so", "--cubin", "a.sm_90.cubin", "--dry-run")
    assert done.returncode == 3
    assert "absent.so: cannot open" in done.stderr
    done = graft("libab.so", "--cubin", "absent.cubin", "--dry-run")
    assert done.returncode == 3
    assert "absent.cubin: cannot open" in done.stderr
