#!/usr/bin/env python3
"""Run the prepared cases on a machine with a GPU and compare the codes with the expected ones.

usage: drive.py OUTDIR|cases.tar.xz [--jobs N]        (Python 3 and nothing else; also writes $OUT/table.md)
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STAGES = ("before", "after", "undone")
MODES = ("LAZY", "EAGER")
SECONDS = 60
FORCING = ("CUDA_FORCE_PTX_JIT", "CUDA_FORCE_JIT", "CUDA_DISABLE_PTX_JIT", "CUDA_DISABLE_JIT", "LD_PRELOAD")


def machine() -> str:
    """Name and driver of the GPU."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi: {error}"
    return (done.stdout or done.stderr).strip()


def unpack_wheels(root: Path, cases: list[dict[str, Any]], scratch: Path) -> None:
    """Replace each wheel of the plan by the library in it."""
    for case in cases:
        if case["runner"] != "wheel":
            continue
        for stage in case["files"]:
            folder = scratch / case["name"] / stage
            with zipfile.ZipFile(root / case["files"][stage]) as archive:
                archive.extractall(folder)
            case["files"][stage] = str(next(folder.rglob("*.so")))


def execute(command: list[str], mode: str) -> str:
    """'A B' as printed by the program, or how it ended."""
    environment = {key: value for key, value in os.environ.items() if key not in FORCING}
    environment |= {"CUDA_MODULE_LOADING": mode, "CUDA_CACHE_DISABLE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"hangs ({SECONDS} s)"
    except OSError as error:
        return str(error)
    found = re.fullmatch(r"run_a=(-?\d+) run_b=(-?\d+)\n", done.stdout)
    if done.returncode or not found:
        return " ".join(f"exit {done.returncode} {done.stdout} {done.stderr}".split())[:200]
    return f"{found[1]} {found[2]}"


def table(root: Path, plan: dict[str, Any], jobs: int) -> tuple[str, int, int]:
    """Run all; the table, the number of runs, and of those that differ."""
    runs = {}
    with ThreadPoolExecutor(jobs) as pool:
        for case in plan["cases"]:
            for mode in MODES:
                for stage in case["files"]:
                    path = root / case["files"][stage]
                    command = [str(path)] if case["runner"] == "program" else [str(root / plan["runlib"]), str(path)]
                    runs[case["name"], mode, stage] = pool.submit(execute, command, mode)
    lines = ["| case | loading | before | after | undone | verdict |", "|---|---|---|---|---|---|"]
    differing = 0
    for case in plan["cases"]:
        for mode in MODES:
            cells, wrong = [], 0
            for stage in STAGES:
                if stage not in case["files"]:
                    cells.append("-")
                    continue
                found = runs[case["name"], mode, stage].result()
                want = " ".join(map(str, case["expected"][stage]))
                wrong += found != want
                cells.append(found if found == want else f"**{found.replace('|', '/')}** (expected {want})")
            differing += wrong
            lines.append(f"| {' | '.join([case['name'], mode, *cells, 'DIFFERS' if wrong else 'ok'])} |")
    return "\n".join(lines), len(runs), differing


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--jobs", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root, scratch = arguments.outdir.resolve(), Path(name)
        if root.is_file():
            with tarfile.open(root) as archive:
                archive.extractall(scratch / "cases", filter="data")
            root = scratch / "cases"
        plan = json.loads((root / "plan.json").read_text())
        unpack_wheels(root, plan["cases"], scratch / "wheels")
        rows, total, differing = table(root, plan, arguments.jobs)
    text = f"{machine()}\n\nCodes of run_a and run_b; 0 0 = right numbers.\n\n{rows}\n\n{total - differing} of {total} runs as expected.\n"
    print(text, end="")
    if "OUT" in os.environ:
        (Path(os.environ["OUT"]) / "table.md").write_text(text)
    return 1 if differing or not total else 0


if __name__ == "__main__":
    sys.exit(main())
