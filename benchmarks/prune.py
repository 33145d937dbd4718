#!/usr/bin/env python3
"""Pruning and compacting a large library beside copying it; recompressing and telling duplicates.

usage: prune.py LIBRARY DROP [--runs N]      (DROP: targets to take out, such as sm_120a,sm_121a)

Each round: copy the library and sync the copy, then prune it with and without an undo record; wall seconds, medians.
Cold: the library is not in the page cache.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from run import BIN

FATPATCH = str(BIN / "fatpatch")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("library", type=Path)
    parser.add_argument("drop")
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    print(f"{datetime.date.today()}, {machine}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(dir=".") as scratch:
        folder = Path(scratch)
        library = folder / "library.so"
        shutil.copyfile(arguments.library, library)
        prune = [FATPATCH, "prune", str(library), "--drop", arguments.drop, "--compact", "-o", str(folder / "out.so"), "--overwrite"]
        works = {
            "cp": ["cp", str(library), str(folder / "copy.so")],
            "cp and sync": ["sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", str(library), str(folder / "copy.so")],
            "prune --compact": prune,
            "prune --compact --no-undo": [*prune, "--no-undo"],
            "prune (zeros) --dry-run": [FATPATCH, "prune", str(library), "--drop", arguments.drop, "--dry-run"],
            "inspect --duplicates": [FATPATCH, "inspect", "--duplicates", str(library)],
        }
        works |= {f"{name}, cold": works[name] for name in ("cp and sync", "prune --compact", "prune --compact --no-undo")}
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in works}
        for _ in range(arguments.runs):
            for name, command in works.items():
                for made in ("copy.so", "out.so", "out.so.fatpatch-undo"):
                    (folder / made).unlink(missing_ok=True)
                os.sync()
                if name.endswith("cold"):
                    forget(library)
                taken[name].append(timed(command))
        size = library.stat().st_size / 1e6
        print(f"{arguments.library.name}, {size:.0f} MB, without {arguments.drop}\n")
        print("| work | seconds | CPU seconds | MiB |\n|---|---|---|---|")
        for name, rows in taken.items():
            seconds, cpu, memory = (statistics.median(column) for column in zip(*rows, strict=True))
            print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {memory:.0f} |")


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    with path.open("rb") as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(command: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and the most memory in MiB of one process."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, command
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
