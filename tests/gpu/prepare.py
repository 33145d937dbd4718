#!/usr/bin/env python3
"""Edit every case, undo it again, and pack all files for the machine with the GPU.

usage: prepare.py BUILT OUTDIR [NAME...]        (NAME: only these cases)

OUTDIR gets a folder per case with before/, after/ and undone/, plan.json, and cases.tar.xz, which holds all of it.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from cases import CASES, CONTROLS, Case

STAGES = ("before", "after", "undone")


class CaseError(Exception):
    """A case that could not be prepared."""


def fatpatch(*words: str | Path, folder: Path) -> None:
    """Run the tool."""
    command = [sys.executable, "-m", "fatpatch", *map(str, words)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CaseError(f"exit {done.returncode}: fatpatch {' '.join(map(str, words))}\n{done.stdout}{done.stderr}".rstrip())


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def expect(held: bool, words: str) -> None:
    """Fail the case unless the claim held."""
    if not held:
        raise CaseError(words)


def check_record(path: Path) -> None:
    """Every row of a wheel's RECORD must describe its member."""
    with zipfile.ZipFile(path) as archive:
        expect(archive.testzip() is None, f"{path}: a member's CRC is wrong")
        names = archive.namelist()
        name = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = list(csv.reader(archive.read(name).decode().splitlines()))
        expect(sorted(row[0] for row in rows) == sorted(names), f"{path}: RECORD does not list the members")
        for member, want, size in rows:
            if member != name:
                data = archive.read(member)
                found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                expect((want, size) == (f"sha256={found}", str(len(data))), f"{path}: RECORD is wrong about {member}")


def prepare(case: Case, built: Path, outdir: Path) -> dict[str, object]:
    """Make the three stages of a case; its row of the plan."""
    shutil.rmtree(outdir / case.name, ignore_errors=True)
    paths = {stage: outdir / case.name / stage / case.file for stage in STAGES}
    for path in paths.values():
        path.parent.mkdir(parents=True)
        for name in case.beside:
            shutil.copy2(built / name, path.parent / name)
    shutil.copy2(built / case.file, paths["before"])
    source = digest(built / case.file)
    fatpatch(case.command, case.file, *case.options, "-o", paths["after"], folder=built)
    if case.then:
        fatpatch("graft", paths["after"], *case.then, "--in-place", folder=built)
    expect(digest(built / case.file) == source, "the input was changed")
    expect(digest(paths["after"]) != source, "the output equals the input")
    expect(paths["after"].stat().st_mode == paths["before"].stat().st_mode, "the file mode was not kept")
    for suffix in ("", ".fatpatch-undo"):
        shutil.copy2(f"{paths['after']}{suffix}", f"{paths['undone']}{suffix}")
    fatpatch("undo", paths["undone"], folder=built)
    expect(digest(paths["undone"]) == source, "undo did not restore the bytes")
    expect(paths["undone"].stat().st_mode == paths["before"].stat().st_mode, "undo did not keep the file mode")
    if case.tool:
        subprocess.run([*case.tool, str(paths["after"])], check=True)
    if case.runner == "wheel":
        check_record(paths["after"])
    return {
        "name": case.name,
        "runner": case.runner,
        "files": {stage: path.relative_to(outdir).as_posix() for stage, path in paths.items()},
        "expected": {"before": case.before, "after": case.after, "undone": case.before},
    }


def control(case: Case, built: Path, outdir: Path) -> dict[str, object]:
    """Copy a file that needs no graft; its row of the plan has the stage "after" alone."""
    path = outdir / case.name / case.file
    path.parent.mkdir(exist_ok=True)
    shutil.copy2(built / case.file, path)
    files, expected = {"after": path.relative_to(outdir).as_posix()}, {"after": case.after}
    return {"name": case.name, "runner": case.runner, "files": files, "expected": expected}


def pack(path: Path, names: list[str]) -> Path:
    """One archive of what lies beside it; a large window, since most files are near copies of each other."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}]
    with lzma.open(path, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.add(path.parent / name, name)
    return path


def main() -> int:
    """Prepare, report, pack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("built", type=Path)
    parser.add_argument("outdir", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    built, outdir = arguments.built.resolve(), arguments.outdir.resolve()
    unknown = set(arguments.names) - {case.name for case in CASES}
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    outdir.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    failures = 0
    for case in CASES:
        if arguments.names and case.name not in arguments.names:
            continue
        try:
            rows.append(prepare(case, built, outdir))
        except CaseError as error:
            failures += 1
            print(f"FAILED {case.name}: {error}")
        else:
            print(f"ok     {case.name}")
    rows += [control(case, built, outdir) for case in CONTROLS]
    shutil.copy2(built / "runlib", outdir / "runlib")
    (outdir / "plan.json").write_text(json.dumps({"runlib": "runlib", "cases": rows}, indent=1) + "\n")
    path = pack(outdir / "cases.tar.xz", ["plan.json", "runlib", *(str(row["name"]) for row in rows)])
    print(f"{len(rows) - len(CONTROLS)} prepared, {failures} failed; {path} is {path.stat().st_size:,d} bytes")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
