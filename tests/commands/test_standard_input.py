"""``-`` in place of a file, and ``-q``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, SAMPLES, Run

from fatpatch.commands import COMMANDS, load


def piped(data: bytes, *arguments: str, temporary: Path) -> subprocess.CompletedProcess[str]:
    """Run fatpatch with bytes on standard input."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "fatpatch", *arguments]
    done = subprocess.run(command, input=data, env=environment, cwd=SAMPLES, capture_output=True, timeout=60, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "{}", "--kernels"],
        ["doctor", "{}", "--gpu", "GTX 1060"],
        ["check", "{}", "--require", "sm_89", "--no-policy"],
        ["verify", "{}"],
        ["diff", "{}", "donor.so"],
    ],
    ids=lambda words: words[0],
)
def test_standard_input_is_read_as_the_file_is(arguments: list[str], run: Run, tmp_path: Path) -> None:
    data = (SAMPLES / "libkernels.so").read_bytes()
    named = run(*(word.format("libkernels.so") for word in arguments))
    read = piped(data, *(word.format("-") for word in arguments), temporary=tmp_path)
    assert read.returncode == named.returncode
    text = named.stdout.replace("fatpatch inspect libkernels.so", "fatpatch inspect -").replace("graft libkernels.so", "graft FILE")
    assert "<stdin>" in read.stdout
    assert read.stdout.replace("<stdin>", "libkernels.so").split() == text.replace("fixed-libkernels.so", "fixed-FILE").split()
    assert not list(tmp_path.iterdir())


def test_two_dashes_are_one_input(tmp_path: Path) -> None:
    done = piped((SAMPLES / "donor.so").read_bytes(), "diff", "-", "-", temporary=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_json_names_standard_input(tmp_path: Path) -> None:
    done = piped((SAMPLES / "kernels.fatbin").read_bytes(), "inspect", "-", "--format", "json", temporary=tmp_path)
    (file,) = json.loads(done.stdout)["files"]
    assert (file["path"], file["payloads"][0]["locator"]) == ("<stdin>", "<stdin>!fatbin[0]")


def test_what_is_too_long_is_not_kept(tmp_path: Path) -> None:
    done = piped(bytes(5000), "inspect", "-", "--max-download", "4K", temporary=tmp_path)
    assert done.returncode == 4
    assert done.stderr == "fatpatch: error: <stdin>: holds more than 4096 bytes\n  hint: raise --max-download, or give a path\n"
    assert not list(tmp_path.iterdir())


def test_the_temporary_file_is_not_named(tmp_path: Path) -> None:
    damaged = piped((SAMPLES / "libkernels.so").read_bytes()[:20000], "verify", "-", temporary=tmp_path)
    assert damaged.returncode == 1
    assert "<stdin> is NOT sound" in damaged.stdout
    assert str(tmp_path) not in damaged.stdout + damaged.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "fatpatch", "inspect", "-"], stdin=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(1 << 21))
        process.stdin.flush()
        for _ in range(200):
            if any(tmp_path.rglob("stdin")):
                break
            time.sleep(0.05)
        assert any(tmp_path.rglob("stdin"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 130
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["graft", "-", "--cubin", "x", "--in-place"], ["prune", "-", "--drop", "sm_50", "-o", "x"], ["undo", "-"]]
)
def test_standard_input_cannot_be_edited(arguments: list[str], tmp_path: Path) -> None:
    done = piped(b"", *arguments, temporary=tmp_path)
    assert (done.returncode, done.stderr.split("\n")[0]) == (3, "fatpatch: error: <stdin>: only files can be edited")


def test_a_policy_cannot_name_standard_input(tmp_path: Path) -> None:
    done = piped((SAMPLES / "donor.so").read_bytes(), "check", "-", "--init", "--policy", str(tmp_path / "p.toml"), temporary=tmp_path)
    assert (done.returncode, "standard input has no name" in done.stderr) == (2, True)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["doctor", "libkernels.so", "--gpu", "GTX 1060", "--driver", "535.154"], 0, "WILL RUN: libkernels.so on GeForce GTX 1060 "),
        (["doctor", "donor.so", "--gpu", "RTX 3060"], 1, "WILL NOT RUN: donor.so on GeForce RTX 3060 "),
        (["check", "donor.so", "--require", "sm_75", "--no-policy"], 1, "FAILED: 1 file, 1 with GPU code: 1 error"),
        (["verify", "donor.so"], 0, "donor.so is sound"),
        (["inspect", "donor.so"], 0, ""),
        (["diff", "donor.so", "libkernels.so"], 1, ""),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_quiet_prints_the_verdict_only(run: Run, first: bool, arguments: list[str], code: int, line: str) -> None:
    """Before the command and after it."""
    done = run("-q", *arguments) if first else run(*arguments, "-q")
    assert done.returncode == code
    assert done.stdout.startswith(line)
    assert done.stdout.count("\n") == (1 if line else 0)
    assert done.stderr == ""


def test_quiet_keeps_errors_and_documents(run: Run) -> None:
    failed = run("-q", "inspect", "no-such-file")
    assert (failed.returncode, failed.stdout) == (3, "")
    assert failed.stderr.startswith("fatpatch: error: no-such-file")
    for arguments in (["inspect", "donor.so", "--format", "json"], ["check", "donor.so", "--require", "sm_75", "--format", "github"]):
        assert run(*arguments, "-q").stdout == run(*arguments).stdout != ""


def test_a_quiet_edit_writes_the_file(run: Run, tmp_path: Path) -> None:
    done = run("prune", "libkernels.so", "--drop", "sm_50", "-o", tmp_path / "x.so", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "x.so").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet(name: str) -> None:
    assert sum("--quiet" in parameter.opts for parameter in load(name).params) == 1
    load(name)
    assert sum("--quiet" in parameter.opts for parameter in load(name).params) == 1


@pytest.mark.parametrize(("data", "said"), [(b"", "is an empty file"), (b"<!DOCTYPE html>\n<html>404</html>\n", "is an HTML page")])
def test_a_failed_download_is_no_file_without_gpu_code(data: bytes, said: str, tmp_path: Path) -> None:
    """What ``curl`` writes when there is nothing, or a page of an error."""
    done = piped(data, "doctor", "-", "--gpu", "sm_61", temporary=tmp_path)
    assert (done.returncode, done.stdout.startswith("CANNOT TELL")) == (1, True)
    assert f"<stdin>: {said}\n" in done.stdout
    assert piped(data, "verify", "-", temporary=tmp_path).returncode == 5
    assert piped(data, "check", "-", "--select", "FP0", "--fail-on", "warning", temporary=tmp_path).returncode == 1


def test_an_index_keeps_no_standard_input(tmp_path: Path) -> None:
    done = piped(b"", "audit", "-", "--db", str(tmp_path / "a.db"), temporary=tmp_path)
    assert (done.returncode, "--files-from -" in done.stderr) == (2, True)
    assert not (tmp_path / "a.db").exists()
