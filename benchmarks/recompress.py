#!/usr/bin/env python3
"""Time ``recompress --level 19`` and its estimate beside ``zstd -T2 -19`` of the same unpacked bytes, and print a table for RESULTS.md.

usage: recompress.py [--level N] FILE...        (zstd on PATH)

Whole processes in turn, once each: they take minutes. The estimate's margin is compared with the sum that the exact run gives.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from run import BIN, measure

_UNPACK = """
import sys
from fatpatch.gpucode.content import ImageReader
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.walk import inspected
with inspected(sys.argv[1]) as node, open(sys.argv[2], "wb") as out:
    for holder, payload in payloads_below(node):
        reader = ImageReader(holder.content, 192 << 20)
        for image in payload.images:
            if image.kind in ("sass", "ptx") and image.readable and image.within is None:
                out.write(reader.read(image))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--level", default="19")
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    processors = os.cpu_count() or 1
    print(
        f"{datetime.date.today()}, {platform.system()} {platform.machine()}, {processors} processors, Python {platform.python_version()}\n"
    )
    works = ("estimate", "recompress -o", f"zstd -T{processors} -{arguments.level}")
    print("| file | " + " | ".join(f"{work}: wall / cpu s / MiB" for work in works) + " | cpu: times zstd | estimate, margin, exact: MB |")
    print("|---|---|---|---|---|---|")
    for path in arguments.files:
        with tempfile.TemporaryDirectory(dir=".") as scratch:
            row(path, Path(scratch), arguments.level, processors)


def row(path: Path, folder: Path, level: str, processors: int) -> None:
    """One line of the table."""
    raw, out = folder / "raw", folder / "out"
    subprocess.run([sys.executable, "-c", _UNPACK, str(path), str(raw)], check=True)
    zstd = [shutil.which("zstd") or "zstd", "-q", f"-T{processors}", f"-{level}", str(raw), "-o", str(folder / "raw.zst")]
    ours = [str(BIN / "fatpatch"), "recompress", str(path), "--codec", "zstd", "--level", level, "--compact"]
    rows = [measure([*ours, "--dry-run"]), measure([*ours, "-o", str(out), "--no-undo"]), measure(zstd)]
    told = [documented([*ours, "--dry-run"]), documented([str(BIN / "fatpatch"), "inspect", str(out)] if out.exists() else None)]
    cells = [f"{wall:.1f} / {cpu:.1f} / {peak:.0f}" for wall, cpu, peak in rows]
    estimate, margin = told[0]
    name = f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, {raw.stat().st_size / 1e6:.0f} unpacked"
    exact = f"{told[1][0] / 1e6:.1f}"
    print(
        f"| {name} | {' | '.join(cells)} | {rows[1][1] / rows[2][1]:.2f} | {estimate / 1e6:.1f}, {margin / 1e6:.1f}, {exact} |", flush=True
    )


def documented(command: list[str] | None) -> tuple[int, int]:
    """(bytes of all images as stored, the margin) by the JSON of a dry run or a listing."""
    if command is None:
        return 0, 0
    done = subprocess.run([*command, "--format", "json"], check=True, capture_output=True, text=True)
    document: dict[str, Any] = json.loads(done.stdout)
    if "targets" in document:
        return sum(row["stored_then"] for row in document["targets"]), (document["estimate"] or {"margin": 0})["margin"]
    images = [image for payload in document["files"][0]["payloads"] for image in payload["images"]]
    return sum(image["stored_size"] for image in images), 0


if __name__ == "__main__":
    main()
