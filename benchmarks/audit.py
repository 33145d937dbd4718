#!/usr/bin/env python3
"""Throughput, memory and sameness of ``fatpatch audit``, and a loop over cuobjdump beside it.

usage: audit.py [--corpus FOLDER] [--files N]      (cuobjdump 13.5 of the [oracle] extra beside this Python)

Small files are copies of samples/libkernels.so, each with some bytes of its own at the end; for memory copies of a sample cubin.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from run import BIN, CUOBJDUMP

ROOT = Path(__file__).resolve().parent.parent
FATPATCH = str(BIN / "fatpatch")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--files", type=int, default=2000)
    arguments = parser.parse_args()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    print(f"{datetime.date.today()}, {machine}, Python {platform.python_version()}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = copies(folder / "small", ROOT / "samples/libkernels.so", arguments.files)
        memory(folder, arguments.files)  # first: what this process holds would be counted for its children
        throughput(folder, small)
        if arguments.corpus is not None:
            sameness(folder, small, arguments.corpus)


def copies(folder: Path, sample: Path, count: int) -> Path:
    """A folder with so many files that differ in their last bytes."""
    folder.mkdir()
    data = sample.read_bytes()
    for index in range(count):
        (folder / f"{index:05}{sample.suffix}").write_bytes(data + index.to_bytes(4, "little"))
    return folder


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds, and the most memory of one process in MiB."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return time.monotonic() - began, usage.ru_maxrss / 1024


def audit(index: Path, *arguments: object) -> tuple[float, float]:
    """One run into a fresh index."""
    return timed([FATPATCH, "audit", *map(str, arguments), "--db", str(index)])


def throughput(folder: Path, small: Path) -> None:
    """Files and megabytes a second, beside loops over cuobjdump."""
    files = sorted(small.iterdir())
    total = sum(path.stat().st_size for path in files) / 1e6
    print("| work | seconds | files a second | MB/s |\n|---|---|---|---|")
    for name, extra in (("audit -j 1", ["-j", 1]), ("audit -j 2", ["-j", 2])):
        row(name, audit(folder / f"{name}.sqlite", small, *extra)[0], len(files), total)
    row("audit again, nothing changed", audit(folder / "audit -j 2.sqlite", small)[0], len(files), total)
    for name, option in (("loop: cuobjdump -lelf -lptx", ["-lelf", "-lptx"]), ("loop: cuobjdump -res-usage", ["-res-usage"])):
        began = time.monotonic()
        for path in files[:200]:
            subprocess.run([CUOBJDUMP, *option, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        row(f"{name} (first 200)", time.monotonic() - began, 200, total * 200 / len(files))
    print(flush=True)


def row(name: str, seconds: float, files: int, total: float) -> None:
    """One line of the table."""
    print(f"| {name} | {seconds:.1f} | {files / seconds:.0f} | {total / seconds:.1f} |", flush=True)


def sameness(folder: Path, small: Path, corpus: Path) -> None:
    """All the files one after the other, in two processes, by two Dask workers, and in four shards that are merged: the same rows."""
    seconds = {
        "-j 1": audit(folder / "one.sqlite", small, corpus, "-j", 1)[0],
        "-j 2": audit(folder / "two.sqlite", small, corpus, "-j", 2)[0],
    }
    with cluster(folder) as address:
        seconds["two Dask workers"] = audit(folder / "dask.sqlite", small, corpus, "--dask", address)[0]
    shards = [folder / f"shard{number}.sqlite" for number in (1, 2, 3, 4)]
    for number, shard in enumerate(shards, 1):
        audit(shard, small, corpus, "--shard", f"{number}/4")
    subprocess.run([FATPATCH, "db", "merge", str(folder / "all.sqlite"), *map(str, shards)], check=True, stderr=subprocess.DEVNULL)
    dumps = [dump(folder / f"{name}.sqlite") for name in ("one", "two", "dask", "all")]
    files = sum(line[0] == "location" for line in dumps[0])
    words = "the same" if all(each == dumps[0] for each in dumps) else "NOT THE SAME"
    times = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    result = f"{len(dumps[0])} rows, {words} with -j 1, -j 2, Dask and four shards merged"
    print(f"{files} files with the corpus ({times}): {result}.\n", flush=True)


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[str]:
    """A Dask scheduler and two workers of one thread each; the scheduler's address."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    module, known = [sys.executable, "-m"], folder / "scheduler.json"
    alone = ["--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / "scratch")]
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(known)]
    running = [subprocess.Popen([*module, "distributed.cli.dask_scheduler", *options], **quiet)]
    try:
        while not known.exists() or not known.read_text().endswith("}"):
            time.sleep(0.1)
        address = json.loads(known.read_text())["address"]
        running += [subprocess.Popen([*module, "distributed.cli.dask_worker", address, *alone], **quiet) for _ in range(2)]
        time.sleep(5)  # both have joined
        yield address
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


def dump(index: Path) -> list[tuple[object, ...]]:
    """All rows of all tables, sorted."""
    connection = sqlite3.connect(index)
    tables = sorted(name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'"))
    rows = [(table, *line) for table in tables for line in connection.execute(f"SELECT * FROM {table}")]
    return sorted(rows, key=repr)


def memory(folder: Path, files: int) -> None:
    """The most memory of the main process, for a tenth of so many files, for as many, and for ten times as many."""
    print("| files | seconds | files a second | most memory, MiB |\n|---|---|---|---|")
    for count in (max(files // 10, 1), files, 10 * files):
        few = copies(folder / f"cubins{count}", ROOT / "samples/kernels.sm_61.cubin", count)
        seconds, most = audit(folder / f"memory{count}.sqlite", few)
        print(f"| {count} | {seconds:.1f} | {count / seconds:.0f} | {most:.0f} |", flush=True)
        shutil.rmtree(few)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
