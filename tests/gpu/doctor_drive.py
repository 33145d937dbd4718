#!/usr/bin/env python3
"""Run the kit of doctor_build.py on a machine with a GPU: every call of the fifty libraries, and the JIT time of the twenty PTX texts.

usage: doctor_drive.py KIT [--jobs N]     (Python 3 and nothing else; writes doctor-libs.json, jit.json and doctor.md into $OUT or .)
       doctor_drive.py KIT --selfcheck    (no GPU: every library loads, every call answers, the manifest is whole)
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SECONDS = 15
JIT_SECONDS = 120
BUDGET = 390
SMALL = 1_000_000
CACHED = ("t02.ptx", "t19.ptx", "t12.ptx")
NO_GPU = (35, 100)  # cudaErrorInsufficientDriver, cudaErrorNoDevice
START = time.monotonic()


def machine() -> dict[str, str]:
    """GPU, driver, processor."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        smi = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        smi = str(error)
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return {
        "gpu": smi,
        "processor": model[1] if model else "",
        "cores": str(os.cpu_count()),
        "libc": " ".join(platform.libc_ver()),
        "python": sys.version.split()[0],
    }


def clean(extra: dict[str, str]) -> dict[str, str]:
    """The environment without any CUDA switch, plus `extra`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("CUDA_") and key != "LD_PRELOAD"}
    return {**kept, "CUDA_CACHE_DISABLE": "1", **extra}


def execute(command: list[str], environment: dict[str, str], limit: int) -> dict[str, Any]:
    """Run a program; its lines that start with @, how it ended, and what else it wrote."""
    start = time.monotonic()
    if start - START > BUDGET:
        return {"end": "skipped: out of time", "lines": [], "seconds": 0.0, "words": ""}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        output, errors = process.communicate(timeout=limit)
        end = "" if not process.returncode else f"exit {process.returncode}"
        if process.returncode < 0:
            end = f"crash (signal {-process.returncode})"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        try:
            output, errors = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            output, errors = b"", b"does not die"
        end = f"hang ({limit} s)"
    lines = output.decode(errors="replace").split("\n")
    words = " / ".join(line for line in lines if line.strip() and not line.startswith("@"))
    return {
        "end": end,
        "lines": [json.loads(line[1:]) for line in lines if line.startswith("@") and line.endswith("}")],
        "seconds": round(time.monotonic() - start, 3),
        "words": (words + errors.decode(errors="replace"))[:400],
    }


def short(line: dict[str, int]) -> dict[str, int]:
    """What counts of an answer: the first code that is not 0, else the mark."""
    if line["setup"]:
        return {"setup": line["setup"]}
    if line["launch"]:
        return {"launch": line["launch"]}
    if line["sync"] or line["copy"]:
        return {"launch": 0, "sync": line["sync"] or line["copy"]}
    return {"launch": 0, "sync": 0, "mark": line["mark"]}


def agrees(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an answer is the expected one."""
    if "end" in wanted:
        return str(found.get("end", "")).startswith(wanted["end"])
    return all(found.get(key) == value for key, value in wanted.items() if key != "guess")


def run_calls(root: Path, library: dict[str, Any], run: dict[str, Any], calls: list[str]) -> dict[str, Any]:
    """One process; the answer of each call."""
    done = execute([str(root / "doctor_runner"), str(root / library["file"]), *calls], clean(run["environment"]), SECONDS)
    answers: dict[str, Any] = {line["call"]: short(line) for line in done["lines"]}
    missing = [call for call in calls if call not in answers]
    for number, call in enumerate(missing):
        answers[call] = {"end": done["end"] or "no answer"} if number == 0 else {"end": "not reached"}
    return {"answers": answers, "end": done["end"], "seconds": done["seconds"], "words": done["words"]}


def run_library(root: Path, library: dict[str, Any], run: dict[str, Any]) -> dict[str, Any]:
    """All calls of a library in one environment; calls lost behind a crash are made again, alone."""
    calls = list(run["expected"])
    groups = [[call] for call in calls] if run["alone"] else [calls]
    parts = [run_calls(root, library, run, group) for group in groups]
    answers = {call: answer for part in parts for call, answer in part["answers"].items()}
    again = [call for call in calls if answers[call].get("end") == "not reached"]
    parts += [run_calls(root, library, run, [call]) for call in again]
    for part in parts[len(groups) :]:
        answers |= part["answers"]
    rows = {
        call: {"expected": run["expected"][call], "found": answers[call], "agrees": agrees(answers[call], run["expected"][call])}
        for call in calls
    }
    return {
        "file": library["file"],
        "rules": library["rules"],
        "name": run["name"],
        "calls": rows,
        "again_alone": again,
        "processes": [{key: part[key] for key in ("end", "seconds", "words")} for part in parts],
    }


def libraries(root: Path, jobs: int) -> list[dict[str, Any]]:
    """Every library in every environment."""
    manifest = json.loads((root / "libs.json").read_text())
    with ThreadPoolExecutor(jobs) as pool:
        pending = [pool.submit(run_library, root, library, run) for library in manifest["libraries"] for run in library["runs"]]
        return [one.result() for one in pending]


def jit(root: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Time one text."""
    repeats = 3 if row["bytes"] < SMALL else 2
    done = execute([str(root / "doctor_jit"), str(repeats), str(root / row["file"])], clean({}), JIT_SECONDS)
    return {**row, "end": done["end"], "words": done["words"], **(done["lines"][0] if done["lines"] else {})}


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cached(root: Path, row: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """First and second process with the compiler's cache switched on, in a folder of its own."""
    home = scratch / f"cache-{row['file']}"
    home.mkdir()
    environment = clean({"CUDA_CACHE_PATH": str(home)})
    del environment["CUDA_CACHE_DISABLE"]
    text = str(root / row["file"])
    steps = {"warm": ["1"], "first": ["1", text], "second": ["1", text], "third": ["1", text]}
    found: dict[str, Any] = {"file": row["file"], "bytes": row["bytes"]}
    for name, words in steps.items():
        done = execute([str(root / "doctor_jit"), *words], environment, JIT_SECONDS)
        line = done["lines"][0] if done["lines"] else {}
        found[name] = {"end": done["end"], "rc": line.get("rc"), "times": line.get("times"), "folder_bytes": size_of(home)}
    found["cache_bytes"] = found["first"]["folder_bytes"] - found["warm"]["folder_bytes"]
    return found


def texts(root: Path, scratch: Path, jobs: int) -> dict[str, Any]:
    """All texts, the long ones first, then the three with the cache."""
    rows = json.loads((root / "ptx.json").read_text())
    order = sorted(rows, key=lambda row: -row["bytes"])
    with ThreadPoolExecutor(jobs) as pool:
        timed = list(pool.map(lambda row: jit(root, row), order))
    with ThreadPoolExecutor(len(CACHED)) as pool:
        kept = list(pool.map(lambda row: cached(root, row, scratch), [row for row in rows if row["file"] in CACHED]))
    return {"modules": sorted(timed, key=lambda row: str(row["file"])), "cache": kept}


def report(results: list[dict[str, Any]], times: dict[str, Any] | None, words: dict[str, str]) -> str:
    """Markdown: every disagreement, then the times."""
    total = sum(len(row["calls"]) for row in results)
    guesses = sum("guess" in call["expected"] for row in results for call in row["calls"].values())
    lines = [", ".join(words.values()), ""]
    differing = [(row, name, call) for row in results for name, call in row["calls"].items() if not call["agrees"]]
    lines.append(f"{total - len(differing)} of {total} calls as expected ({guesses} of them were guesses) in {len(results)} runs.")
    lines += ["", "| library | run | call | expected | found |", "|---|---|---|---|---|"]
    for row, name, call in differing:
        lines.append(
            f"| {row['file']} {row['rules']} | {row['name']} | {name} | {json.dumps(call['expected'])} | {json.dumps(call['found'])} |"
        )
    if times:
        lines += [
            "",
            "| text | from | bytes | before .entry | .entry | rc | functions | s | cpu s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for one in times["modules"]:
            best = min(one.get("times") or [[0, 0]])
            cells = (one["file"], one["package"], one["bytes"], one["bytes_before_entry"], one["entries"], one.get("rc", one["end"]))
            lines.append(f"| {' | '.join(map(str, cells))} | {one.get('functions')} | {best[0]:.3f} | {best[1]:.3f} |")
        lines += ["", f"cache: {json.dumps(times['cache'])}"]
    return "\n".join(lines) + "\n"


def selfcheck(root: Path) -> int:
    """Without a GPU every call must answer that there is none."""
    manifest = json.loads((root / "libs.json").read_text())
    faults = 0
    for library in manifest["libraries"]:
        data = (root / library["file"]).read_bytes()
        for module in library["modules"]:
            if data[module["fatbin_offset"] :][:4] != b"\x50\xed\x55\xba":
                faults += 1
                print(f"{library['file']} {module['module']}: no fatbin at its offset")
        run = library["runs"][0]
        part = run_calls(root, library, {**run, "environment": {}}, list(run["expected"]))
        wrong = {call: answer for call, answer in part["answers"].items() if answer.get("setup") not in NO_GPU}
        if wrong or part["end"]:
            faults += 1
            print(f"{library['file']}: {part['end']} {wrong} {part['words']}")
    processes = sum(len(run["expected"]) if run["alone"] else 1 for library in manifest["libraries"] for run in library["runs"])
    calls = sum(len(run["expected"]) for library in manifest["libraries"] for run in library["runs"])
    print(f"{len(manifest['libraries'])} libraries, {processes} processes, {calls} calls to make; {faults} faults")
    return 1 if faults else 0


def main() -> int:
    """Unpack, run, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kit", type=Path)
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--selfcheck", action="store_true")
    arguments = parser.parse_args()
    output = Path(os.environ.get("OUT", "."))
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for path in sorted(arguments.kit.glob("*.tar.xz")):
            with tarfile.open(path) as archive:
                archive.extractall(scratch / path.name.split(".")[0], filter="data")
        if arguments.selfcheck:
            code = selfcheck(scratch / "libs")
            if (scratch / "ptx").is_dir():
                print(json.dumps(jit(scratch / "ptx", json.loads((scratch / "ptx/ptx.json").read_text())[0])))
            return code
        words = machine()
        results = libraries(scratch / "libs", arguments.jobs)
        print(f"libraries: {time.monotonic() - START:.0f} s", flush=True)
        (output / "doctor-libs.json").write_text(json.dumps({"machine": words, "runs": results}, indent=1) + "\n")
        times = texts(scratch / "ptx", scratch, arguments.jobs) if (scratch / "ptx").is_dir() else None
        if times:
            (output / "jit.json").write_text(json.dumps({"machine": words, **times}, indent=1) + "\n")
        text = report(results, times, words)
    (output / "doctor.md").write_text(text)
    print(text)
    print(f"{time.monotonic() - START:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
