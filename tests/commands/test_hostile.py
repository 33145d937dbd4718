"""Policies, expressions, questions, addresses, names and sizes from strangers: bounded in time and memory, quoted, refused, cleaned up."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry
from conftest import ROOT, SAMPLES, Run

from fatpatch.base.leftovers import prefix_for
from fatpatch.base.locator import escape
from fatpatch.remote.connections import _public


@pytest.mark.parametrize(
    "text",
    [
        "a" + ".a" * 50_000 + " = 1",
        "a = " + "[" * 50_000 + "]" * 50_000,
        "a = " + "{b=" * 20_000 + "1" + "}" * 20_000,
        "[" + "x." * 40_000 + "y]\n",
        "# " + "x" * (2 << 20),
    ],
)
def test_policies_of_dots_and_brackets(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    began = time.monotonic()
    done = run("check", "kernels.fatbin", "--policy", tmp_path / "p.toml")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("pattern", ["(a+)+$", "(x+x+)+y", r"(\w|_)*\d$"])
def test_expressions_without_end(run: Run, tmp_path: Path, pattern: str) -> None:
    path = tmp_path / "libx.so"
    code = cubin(arch=75, kernels=("a" * 3000 + "!", "x" * 3000, "_" * 3000 + "z"))
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(entry(code, kind=2, major=1, minor=7, arch=75)))]))
    began = time.monotonic()
    done = run("inspect", path, "--kernel", pattern)
    assert done.returncode in (0, 2)
    assert time.monotonic() - began < 40


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("index") / "index.sqlite"
    subprocess.run([sys.executable, "-m", "fatpatch", "audit", SAMPLES / "kernels.fatbin", "--db", path], cwd=ROOT, check=True)
    return path


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT zeroblob(900000000)",
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in (
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
                "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT n FROM c ORDER BY n DESC",
                "SELECT printf('%.*c', 900000000, 'x')",
            )
        ),
    ],
)
def test_questions_without_end(run: Run, index: Path, sql: str) -> None:
    done = run("query", "--db", index, "--sql", sql)
    assert done.returncode in (3, 4)
    assert "Traceback" not in done.stderr


def test_a_question_ends_on_a_signal(index: Path) -> None:
    sql = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c"
    process = subprocess.Popen([sys.executable, "-m", "fatpatch", "query", "--db", index, "--sql", sql], cwd=ROOT, stderr=subprocess.PIPE)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in errors


@pytest.mark.parametrize("sql", ["DROP TABLE image", "ATTACH 'x' AS y", "PRAGMA writable_schema = 1", "SELECT load_extension('x')"])
def test_questions_only_read(run: Run, index: Path, sql: str) -> None:
    before = index.read_bytes()
    done = run("query", "--db", index, "--sql", sql)
    assert done.returncode in (2, 3)
    assert index.read_bytes() == before


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"),
        *("::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "5f00::1", "4000::1", "192.88.99.1"),
        *("64:ff9b::10.0.0.1", "64:ff9b:1::1", "::10.0.0.1", "::ffff:10.0.0.1", "::ffff:0:10.0.0.1", "64:ff9b::127.0.0.1"),
        *("2002:0a00:0001::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"),
    ],
)
def test_no_public_addresses(address: str) -> None:
    assert not _public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::8.8.8.8"])
def test_public_addresses(address: str) -> None:
    assert _public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "mark", ["\u061c", "\u2060", "\U000e0041", "\u202e", "\u200b", "\x1b", "\x9b", "\ufeff", "\xad", "\u034f", "\u3164", "\U0001d173"]
)
def test_invisible_and_reordering_characters_are_escaped(mark: str) -> None:
    assert mark not in escape(f"a{mark}b")


def test_a_sparse_file_of_20_gb(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    with path.open("wb") as stream:
        stream.write(os.urandom(4096))
        stream.truncate(20 << 30)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system keeps no holes")
    began = time.monotonic()
    assert run("inspect", path).returncode == 0
    assert time.monotonic() - began < 20


def test_a_killed_run_leaves_nothing_for_the_next(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "kernels.fatbin"
    path.write_bytes((SAMPLES / "kernels.fatbin").read_bytes())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    stray = tmp_path / prefix_for(str(path)).replace(f"-p{os.getpid()}-", f"-p{dead.pid}-x.tmp")
    living = tmp_path / (prefix_for(str(path)) + "x.tmp")
    stray.write_bytes(b"half a file")
    living.write_bytes(b"of a process that runs")
    assert run("prune", path, "--drop", "sm_50", "--in-place").returncode == 0
    assert not stray.exists()
    assert living.exists()


def test_interrupted_audits_print_no_traceback_of_a_worker(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.so").write_bytes((SAMPLES / "libkernels.so").read_bytes() + bytes(number))
    command = [sys.executable, "-m", "fatpatch", "audit", tmp_path, "--db", tmp_path / "i.sqlite", "-j", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    time.sleep(1.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert b"Traceback" not in errors


def test_json_of_hostile_names_is_json(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "libx.so"
    code = cubin(arch=75, kernels=('=1"\u202e',))
    path.write_bytes(elf.shared_object([(".nv_fatbin", container(entry(code, kind=2, major=1, minor=7, arch=75)))]))
    assert json.loads(run("inspect", path, "--kernels", "--format", "json").stdout)
