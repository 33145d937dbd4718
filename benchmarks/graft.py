#!/usr/bin/env python3
"""Time a graft against a copy of the same file that is synced to disk, in turn, and print a table for RESULTS.md.

usage: graft.py [--runs N] FILE OPTION...        OPTIONs are those of 'fatpatch graft', without -o
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from run import BIN, measure


def copied(path: Path, folder: Path) -> float:
    """Seconds to copy a file and have it on the disk."""
    start = time.monotonic()
    target = folder / "copy"
    shutil.copyfile(path, target)
    with target.open("rb") as stream:
        os.fsync(stream.fileno())
    elapsed = time.monotonic() - start
    target.unlink()
    return elapsed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("file", type=Path)
    parser.add_argument("options", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.file.parent) as folder:
        out = Path(folder) / "out"
        command = [str(BIN / "fatpatch"), "graft", str(arguments.file), *arguments.options, "-o", str(out)]
        copies, grafts = [], []
        for number in range(arguments.runs + 1):
            copies.append(copied(arguments.file, Path(folder)))
            grafts.append(measure(command))
            if not out.is_file():
                sys.exit(f"no result: {' '.join(command)}")
            grown = out.stat().st_size - arguments.file.stat().st_size
            for path in (out, Path(f"{out}.fatpatch-undo")):
                path.unlink()
            if not number:  # the first run only warms the page cache
                copies.clear()
                grafts.clear()
    wall, cpu, peak = (statistics.median(column) for column in zip(*grafts, strict=True))
    copy = statistics.median(copies)
    what = f"{arguments.file.name}, {arguments.file.stat().st_size / 1e6:.0f} MB (+{grown / 1e6:.0f})"
    print(f"| {what} | {copy:.2f} | {wall:.2f} / {cpu:.2f} / {peak:.0f} | {wall / copy:.1f} |")


if __name__ == "__main__":
    main()
