#!/usr/bin/env python3
"""Time fatpatch and cuobjdump side by side and print a table for RESULTS.md.

usage: run.py [--runs N] FILE...        (both tools from the environment of this Python: pip install -e '.[oracle]')

Commands are run in turn (A B A B ...) after one warm-up each, so that a drifting machine hits both; figures are medians of
whole processes, children included, as the operating system counts them.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

BIN = Path(sys.executable).parent
CUOBJDUMP = next(
    (Path(folder) / "nvidia/cu13/bin/cuobjdump" for folder in sys.path if (Path(folder) / "nvidia/cu13/bin/cuobjdump").is_file()), None
)


def measure(command: list[str]) -> tuple[float, float, float]:
    """(wall s, cpu s, peak MiB of the largest process) of one run."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(ours: list[str], theirs: list[str], runs: int) -> list[tuple[float, float, float]]:
    """Medians of both, ours first."""
    commands = (ours, theirs)
    results: tuple[list[tuple[float, float, float]], ...] = ([], [])
    for number in range(runs + 1):
        for command, rows in zip(commands, results, strict=True):
            row = measure(command)
            if number:
                rows.append(row)
    return [tuple(statistics.median(column) for column in zip(*rows, strict=True)) for rows in results]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    if CUOBJDUMP is None:
        raise SystemExit("cuobjdump is missing: pip install nvidia-cuda-cuobjdump")
    fatpatch = str(BIN / "fatpatch")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    print(f"{datetime.date.today()}, {machine}, Python {platform.python_version()}\n")
    print("| file | work | fatpatch wall / cpu s / MiB | cuobjdump 13.5 wall / cpu s / MiB | times faster: wall, cpu |")
    print("|---|---|---|---|---|")
    rows = [measure([fatpatch, "--version"]) for _ in range(arguments.runs)]
    wall, cpu, peak = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"| | `fatpatch --version` | {wall:.3f} / {cpu:.3f} / {peak:.0f} | | |")
    for path in arguments.files:
        size = path.stat().st_size / 1e6
        for title, ours, theirs in (
            ("list targets", [fatpatch, "inspect", str(path)], [str(CUOBJDUMP), "-all", "--list-elf", str(path)]),
            ("kernels", [fatpatch, "inspect", "--kernels", str(path)], [str(CUOBJDUMP), "-all", "-res-usage", str(path)]),
        ):
            a, b = compare(ours, theirs, arguments.runs)
            cells = [f"{wall:.3f} / {cpu:.3f} / {peak:.0f}" for wall, cpu, peak in (a, b)]
            print(f"| {path.name}, {size:.0f} MB | {title} | {cells[0]} | {cells[1]} | {b[0] / a[0]:.1f}, {b[1] / a[1]:.1f} |", flush=True)


if __name__ == "__main__":
    main()
