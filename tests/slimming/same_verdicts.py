#!/usr/bin/env python3
"""Compare what doctor says of libraries before and after ``slim --for GPU``, module by module.

usage: same_verdicts.py GPU[,GPU...] FILE|FOLDER...      exit code 1 when anything differs

Each library with device code is slimmed, as a copy, for one GPU after the other; doctor judges both for that GPU, and every module's
verdict, error, reason and loaded target must be the same. One line a GPU: libraries slimmed, modules compared, MB before and after.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def fatpatch(*arguments: object) -> dict[str, Any]:
    """The document of a command; {} where it gives none."""
    command = [sys.executable, "-m", "fatpatch", *map(str, arguments), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return dict(json.loads(done.stdout)) if done.stdout.startswith("{") else {}


def libraries(paths: list[str]) -> Iterator[Path]:
    """The files that are meant."""
    for each in map(Path, paths):
        files = sorted(each.rglob("*")) if each.is_dir() else [each]
        yield from (path for path in files if ".so" in path.name and path.is_file() and not path.is_symlink())


def modules(path: Path, gpu: str) -> dict[str, tuple[Any, ...]]:
    """What becomes of each module, by its locator in the file."""
    found: dict[str, tuple[Any, ...]] = {}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if "locator" in value and "verdict" in value and "cuda_error" in value:
                found[value["locator"].partition("!")[2]] = (value["verdict"], value["cuda_error"], value.get("target"))
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    document = fatpatch("doctor", path, "--gpu", gpu)
    collect(document)
    found["the file"] = tuple((row["verdict"], row["outcome"], row["unread"]) for row in document.get("files", ()))
    return found


def compare(gpu: str, paths: list[Path]) -> int:
    """One GPU; the number of differences."""
    slimmed = compared = differing = before = after = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            site = Path(folder, "site")
            site.mkdir()
            made = site / path.name
            shutil.copyfile(path, made)
            document = fatpatch("slim", site, "--for", gpu, "--in-place", "--no-undo")
            rows = [row for package in document.get("packages", ()) for row in package["libraries"]]
            if any(row["status"] == "slimmed" for row in rows):
                old, new = modules(path, gpu), modules(made, gpu)
                bad = [place for place in old.keys() | new.keys() if old.get(place) != new.get(place)]
                for place in bad[:5]:
                    print(f"  DIFFERS on {gpu}: {path.name}!{place}: {old.get(place)} before, {new.get(place)} after", flush=True)
                slimmed, compared, differing = slimmed + 1, compared + len(old), differing + len(bad)
                before, after = before + rows[0]["disk_before"], after + rows[0]["disk_after"]
            elif any(row["status"] == "failed" for row in rows):
                differing += 1
                print(f"  FAILED on {gpu}: {path.name}: {rows[0]['reason']}", flush=True)
            elif rows and rows[0]["status"] == "left alone":
                print(f"  left alone on {gpu}: {path.name}: {rows[0]['reason']}", flush=True)
            shutil.rmtree(site)
    print(
        f"{gpu}: {slimmed} libraries slimmed, {compared} modules compared, {differing} differ, {before / 1e6:,.0f} -> {after / 1e6:,.0f} MB",
        flush=True,
    )
    return differing


def main() -> int:
    gpus, *paths = sys.argv[1:]
    files = list(libraries(paths))
    return min(sum(compare(gpu, files) for gpu in gpus.split(",")), 1)


if __name__ == "__main__":
    sys.exit(main())
