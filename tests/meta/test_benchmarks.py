"""One command runs every benchmark, and a run on the samples works."""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT

FOLDER = ROOT / "benchmarks"


def test_every_benchmark_is_run_by_one_command() -> None:
    source = (FOLDER / "everything.py").read_text()
    scripts = {path.name for path in FOLDER.glob("*.py")} - {"everything.py"}
    assert [name for name in sorted(scripts) if f'"{name}"' not in source] == []


def test_a_smoke_run() -> None:
    command = [sys.executable, str(FOLDER / "everything.py"), "--smoke", "--only", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| libkernels.so, 0 MB |")]
    assert len(rows) == 1
    assert rows[0].count(" / ") == 8  # four GPUs, three figures each


def test_a_failure_is_told() -> None:
    code = "import everything, sys; everything.smoke = lambda scratch: iter([everything.Benchmark('run.py', ('--no-such',))]); "
    code += "sys.argv = ['x', '--smoke']; sys.exit(everything.main())"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 1
