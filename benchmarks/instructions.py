#!/usr/bin/env python3
"""Count the instructions of three commands, which hang on the code and not on the mood of the machine.

usage: instructions.py [--check]      (valgrind on PATH)

``--check`` fails where a command takes more than its bound. The bounds are a third above what was counted with Python 3.11 on x86-64;
raise one only with the reason in the commit.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOUNDS = {
    ("--version",): 215,
    ("inspect", "samples/demo.llamafile"): 375,
    ("doctor", "samples/demo.llamafile", "--gpu", "sm_61"): 780,
}
"""Command -> most instructions, in millions."""


def counted(command: tuple[str, ...]) -> float:
    """Millions of instructions of a run whose modules are compiled; hashes are the same in every run."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"} | {"PYTHONHASHSEED": "0"}
    ours = [sys.executable, "-m", "fatpatch", *command]
    subprocess.run(ours, cwd=ROOT, env=environment, capture_output=True, check=False)  # writes what is compiled
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *ours]
    done = subprocess.run(tool, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind gave no count:\n{done.stderr[-2000:]}")
    return int(found[1]) / 1e6


def main() -> int:
    """Count and print; 1 when a bound is passed and that was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("valgrind is missing: nothing was counted")
        return 0
    over = False
    print("| command | million instructions | bound |\n|---|---|---|")
    for command, bound in BOUNDS.items():
        count = counted(command)
        over |= count > bound
        print(f"| {' '.join(command)} | {count:.0f} | {bound} |", flush=True)
    return 1 if over and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
