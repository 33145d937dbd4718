#!/usr/bin/env python3
"""Time fatpatch on packages beside what merely unpacks them, and print a table for RESULTS.md.

usage: packages.py [--runs N] [--gpu GPU] [--before FATPATCH] [--deb LIBRARY] FILE...

Wheels and other zip files beside ``unzip -t``, .deb files beside ``xz -dc`` of the largest member, which holds the data. Whole processes in
turn, the lowest CPU time of each, page cache warm. ``--before`` names another version's program, whose doctor runs in turn with this one's;
``--deb`` a library of which a .deb is made by ``dpkg-deb -Zxz -z1``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from run import BIN, measure

AR_MAGIC = b"!<arch>\n"
COMMANDS = ("inspect", "verify", "doctor")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gpu", default="B200")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--deb", type=Path)
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    print(f"{datetime.date.today()}, {machine}, Python {platform.python_version()}\n")
    titles = [*COMMANDS, *(["doctor before"] if arguments.before else [])]
    print(f"| file | unpacking: cpu s | {' | '.join(f'{name}: wall / cpu s / MiB, times' for name in titles)} |")
    print("|---|---|" + "---|" * len(titles), flush=True)
    with tempfile.TemporaryDirectory(dir=".") as packed:
        made = [debian(arguments.deb, Path(packed))] if arguments.deb else []
        measured([*arguments.files, *made], arguments)


def measured(files: list[Path], arguments: argparse.Namespace) -> None:
    """A row for each."""
    for path in files:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            works = [unpacking(path, Path(folder))]
            gpu = ["--gpu", arguments.gpu]
            works += [[str(BIN / "fatpatch"), name, str(path), *(gpu if name == "doctor" else [])] for name in COMMANDS]
            works += [[str(arguments.before), "doctor", str(path), *gpu]] if arguments.before else []
            rows = [[measure(command) for command in works] for _ in range(arguments.runs)]
        lowest = [min(column, key=lambda row: row[1]) for column in zip(*rows, strict=True)]
        limit = max(lowest[0][1], 0.001)
        cells = [f"{wall:.1f} / {cpu:.1f} / {peak:.0f}, {cpu / limit:.1f}" for wall, cpu, peak in lowest[1:]]
        print(f"| {path.name}, {path.stat().st_size / 1e6:.0f} MB | {limit:.2f} | {' | '.join(cells)} |", flush=True)


def debian(library: Path, folder: Path) -> Path:
    """A package of one library."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: some\nVersion: 1\nArchitecture: amd64\nMaintainer: Some <some@example.invalid>\nDescription: some\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/lib").mkdir(parents=True)
    shutil.copyfile(library, tree / "usr/lib" / library.name)
    made = folder / f"{library.name}.deb"
    subprocess.run(["dpkg-deb", "-Zxz", "-z1", "--build", str(tree), str(made)], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return made


def unpacking(path: Path, folder: Path) -> list[str]:
    """The command that unpacks a package and keeps nothing. Little is held here: it would be counted for the commands."""
    with path.open("rb") as stream:
        if stream.read(len(AR_MAGIC)) != AR_MAGIC:
            return [shutil.which("unzip") or "unzip", "-tq", str(path)]
        members = []
        while len(header := stream.read(60)) == 60:
            members.append((int(header[48:58]), stream.tell()))
            stream.seek(members[-1][0] + (members[-1][0] & 1), os.SEEK_CUR)
        left, start = max(members)
        stream.seek(start)
        with (folder / "data").open("wb") as data:
            while left > 0:
                left -= data.write(stream.read(min(left, 1 << 20)))
    return [shutil.which("xz") or "xz", "-dc", str(folder / "data")]


if __name__ == "__main__":
    main()
