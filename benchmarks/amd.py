#!/usr/bin/env python3
"""Time fatpatch on AMD files beside LLVM's lister and print a table for RESULTS.md.

usage: amd.py [--runs N] FILE...        (llvm-readobj of LLVM 22 on PATH or in /usr/lib/llvm-22/bin)

``llvm-readobj --offloading`` lists the bundles of an ELF file; of a DLL it reads nothing, and of compressed bundles it unpacks everything.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
from pathlib import Path

from run import BIN, compare

READOBJ = shutil.which("llvm-readobj", path="/usr/lib/llvm-22/bin") or shutil.which("llvm-readobj-22")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    if READOBJ is None:
        raise SystemExit("llvm-readobj of LLVM 22 is missing")
    fatpatch = str(BIN / "fatpatch")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    print(f"{datetime.date.today()}, {machine}, Python {platform.python_version()}\n")
    print("| file | inspect: wall / cpu s / MiB | llvm-readobj --offloading | inspect --kernels | doctor --gpu gfx1100 |")
    print("|---|---|---|---|---|")
    for path in arguments.files:
        ours, theirs = compare([fatpatch, "inspect", str(path)], [READOBJ, "--offloading", str(path)], arguments.runs)
        kernels, doctor = compare(
            [fatpatch, "inspect", "--kernels", str(path)], [fatpatch, "doctor", str(path), "--gpu", "gfx1100"], arguments.runs
        )
        name = f"{path.name}, {path.stat().st_size / 1e6:.0f} MB"
        print(f"| {name} | {' | '.join(_figures(each) for each in (ours, theirs, kernels, doctor))} |", flush=True)


def _figures(row: tuple[float, float, float]) -> str:
    return f"{row[0]:.2f} / {row[1]:.2f} / {row[2]:.0f}"


if __name__ == "__main__":
    main()
