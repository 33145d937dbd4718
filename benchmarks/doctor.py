#!/usr/bin/env python3
"""Time ``fatpatch doctor`` on real libraries, and its walk over machine code, and print tables for RESULTS.md.

usage: doctor.py [--runs N] FILE...

Whole processes, medians, beside unpacking every image and doing nothing with it. The walk is timed in this process, as CPU milliseconds
for each MB of unpacked cubin.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from run import BIN, measure

from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.cubin.bodies import cubin_bodies
from fatpatch.gpucode.ptx.bodies import ptx_bodies
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.walk import inspected

GPUS = ("GTX 1060", "RTX 3060", "H100", "all")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    print("| file | unpacking all of it: cpu s | " + " | ".join(f"--gpu {gpu}: wall / cpu s / MiB" for gpu in GPUS) + " |")
    print("|---|---|" + "---|" * len(GPUS))
    for path in arguments.files:
        cells = []
        for gpu in GPUS:
            rows = [measure([str(BIN / "fatpatch"), "doctor", str(path), "--gpu", gpu]) for _ in range(arguments.runs + 1)][1:]
            wall, cpu, peak = (statistics.median(column) for column in zip(*rows, strict=True))
            cells.append(f"{wall:.2f} / {cpu:.2f} / {peak:.0f}")
        print(f"| {path.name}, {path.stat().st_size / 1e6:.0f} MB | {unpacked(path):.2f} | " + " | ".join(cells) + " |", flush=True)
    print("\n| file | target | MB | kernels | ms for each MB |\n|---|---|---|---|---|")
    for path in arguments.files:
        for target, (size, kernels, seconds) in sorted(walked(path).items()):
            print(f"| {path.name} | {target} | {size / 1e6:.1f} | {kernels} | {1e9 * seconds / size:.1f} |")


def unpacked(path: Path) -> float:
    """CPU seconds of unpacking every image once, the limit of all that reads them."""
    with inspected(str(path)) as node:
        start = time.process_time()
        for holder, payload in payloads_below(node):
            reader = ImageReader(holder.source, 192 << 20)
            for image in payload.images:
                if image.readable:
                    reader.read(image)
        return time.process_time() - start


def walked(path: Path) -> dict[str, tuple[int, int, float]]:
    """Target -> (bytes, kernels, CPU seconds) of classifying every kernel."""
    found: dict[str, tuple[int, int, float]] = defaultdict(lambda: (0, 0, 0.0))
    with inspected(str(path)) as node:
        for holder, payload in payloads_below(node):
            reader = ImageReader(holder.source, 192 << 20)
            for image in payload.images:
                if image.kind not in ("sass", "ptx") or not image.readable:
                    continue
                data = reader.read(image)
                start = time.process_time()
                bodies = cubin_bodies(data) if image.kind == "sass" else ptx_bodies(data.rstrip(b"\0"))
                size, kernels, seconds = found[image.target]
                found[image.target] = (size + len(data), kernels + len(bodies), seconds + time.process_time() - start)
    return found


if __name__ == "__main__":
    main()
