#!/usr/bin/env python3
"""Compare what a slimmed environment computes with what the original computes, bit by bit, on a machine with a GPU.

usage: slim.py run [ENV] [--scratch DIR] [--out DIR]    copies ENV (the one of this Python) twice, slims both copies for this GPU
                                                        (one with --strip-lto --recompress zstd), and compares
       slim.py compare BEFORE AFTER...                  environments or site-packages folders
       slim.py compute SUITE                            in this process: torch, nccl, cupy, jax or xgboost

Needs Python and PyTorch; CuPy, JAX and XGBoost where they are; ``run`` also needs fatpatch. Every operation (slim_operations.py,
xgboost_operations.py) runs on inputs made on the CPU from fixed seeds, and the SHA-256 of its result is compared: lazy and eager loading, the original twice, so that what is not
repeatable is known. A library that a process loads from another folder than the one that is examined counts as a difference. With two
GPUs, NCCL runs in two processes. Prints a table for RESULTS.md; with --out it is also written there, beside slim's own documents.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import slim_operations as work

MODES = ("LAZY", "EAGER")
SUITES = ("torch", "nccl", "cupy", "jax", "xgboost")
SECONDS = 280
AT_ONCE = 4
LEAST = ("--strip-lto", "--recompress", "zstd")
PYTORCH = ("torch", "torchvision", "torchaudio", "triton", "nvidia-")
FORCING = ("CUDA_FORCE_PTX_JIT", "CUDA_FORCE_JIT", "CUDA_DISABLE_PTX_JIT", "CUDA_DISABLE_JIT", "CUDA_MODULE_LOADING", "LD_LIBRARY_PATH")


def digest(value: Any) -> str:
    """SHA-256 of all arrays in a result, of whatever library."""
    found = hashlib.sha256()
    for each in flat(value):
        if hasattr(each, "detach"):
            found.update(_bytes_of(each.detach()))
        elif hasattr(each, "get"):
            found.update(each.get().tobytes())
        else:
            import numpy

            found.update(numpy.asarray(each).tobytes())
    return found.hexdigest()


def _bytes_of(data: Any) -> bytes:
    """The bytes of a tensor; of a sparse one those of its dense form."""
    import torch

    dense = data if data.layout == torch.strided else data.to_dense()
    return bytes(dense.resolve_conj().resolve_neg().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())


def flat(value: Any) -> Iterator[Any]:
    """The arrays in tuples and lists, however deep."""
    if isinstance(value, tuple | list):
        for each in value:
            yield from flat(each)
    else:
        yield value


def compute(suite: str) -> dict[str, Any]:
    """Run every operation of a suite in this process."""
    if suite == "nccl":
        return nccl_processes()
    about, operations = started(suite)
    results = {}
    for name, function in operations:
        try:
            results[name] = digest(function())
        except Exception as error:
            results[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    return {"about": about, "results": results, "loaded": loaded()}


def started(suite: str) -> tuple[str, Iterable[work.Operation]]:
    """The version of what a suite tests, and its operations."""
    preload()
    if suite == "cupy":
        import cupy

        return f"cupy {cupy.__version__}", work.cupy_operations(cupy)
    if suite == "jax":
        import jax

        return f"jax {jax.__version__} on {jax.devices()[0]}", work.jax_operations(jax)
    if suite == "xgboost":
        import xgboost
        import xgboost_operations

        return f"xgboost {xgboost.__version__}", xgboost_operations.operations(xgboost)
    import torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    about = f"torch {torch.__version__}, {torch.cuda.device_count()} of {torch.cuda.get_device_name()}"
    if suite == "torch":
        return about, work.operations(torch)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl", init_method=f"file://{os.environ['STORE']}", rank=rank, world_size=world)
    return f"{about}, {world} processes", work.nccl_operations(torch, rank, world)


def preload() -> None:
    """Load NVIDIA's libraries of the folder on PYTHONPATH: CuPy would look for them in the environment of the Python that runs this."""
    folder = Path(os.environ.get("PYTHONPATH", "").split(os.pathsep)[0] or ".") / "nvidia"
    for name in ("nvJitLink", "cublasLt", "cublas", "cusparse", "cusolver", "cufft", "curand", "nvrtc-builtins", "nvrtc"):
        for path in sorted(folder.glob(f"*/lib/lib{name}.so.*")):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def nccl_processes() -> dict[str, Any]:
    """As many processes as there are GPUs, at most two: NCCL refuses two processes on one GPU."""
    import torch

    world = min(torch.cuda.device_count(), 2)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"WORLD_SIZE": str(world), "STORE": f"{folder}/store"}
        command = [sys.executable, __file__, "compute", "nccl-rank"]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment | {"RANK": str(rank)}) for rank in range(world)
        ]
        answers = [json.loads(process.communicate(timeout=SECONDS)[0].splitlines()[-1]) for process in started]
    results = {f"rank {rank}: {name}": value for rank, answer in enumerate(answers) for name, value in answer["results"].items()}
    return {
        "about": answers[0]["about"],
        "results": results,
        "loaded": sorted({path for answer in answers for path in answer["loaded"]}),
    }


def loaded() -> list[str]:
    """The libraries below a site-packages folder that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line[line.index("/") :] for line in lines if "/" in line and ".so" in line and "fatpatch" not in line})


def site_of(folder: Path) -> Path:
    """The folder of an environment that goes on Python's path."""
    return next(iter(sorted(folder.glob("lib/python3*/site-packages"))), folder)


def results_of(folder: Path, suite: str, mode: str) -> dict[str, Any]:
    """What the operations give with the packages of a folder."""
    with tempfile.TemporaryDirectory() as caches:
        environment = {key: value for key, value in os.environ.items() if key not in FORCING}
        environment |= {"PYTHONPATH": str(site_of(folder)), "CUDA_MODULE_LOADING": mode, "CUDA_CACHE_DISABLE": "1"}
        environment |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment |= {"XLA_FLAGS": "--xla_gpu_autotune_level=0 --xla_gpu_deterministic_ops=true", "CUPY_CACHE_DIR": f"{caches}/cupy"}
        environment |= {"TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor", "TRITON_CACHE_DIR": f"{caches}/triton"}
        command = [sys.executable, __file__, "compute", suite]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment)
        except subprocess.TimeoutExpired:
            return {"about": f"no answer in {SECONDS} s", "results": {}, "loaded": []}
    if done.returncode:
        return {"about": f"exit {done.returncode}: {done.stderr.strip()[-300:]}", "results": {}, "loaded": []}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def foreign(folder: Path, paths: Iterable[str]) -> list[str]:
    """Loaded libraries that this folder holds too, but that came from elsewhere."""
    site = site_of(folder).resolve()
    out = []
    for path in paths:
        _, found, inner = path.partition("/site-packages/")
        if found and not Path(path).is_relative_to(site) and (site / inner).exists():
            out.append(path)
    return out


def compare(before: Path, after: list[Path], say: Any, suites: Iterable[str] = SUITES) -> int:
    """Compare each with the first, print a line a suite and mode; the number of differences."""
    differing = 0
    for suite in suites:
        for mode in MODES:
            start = time.monotonic()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                first, again, *others = pool.map(lambda folder: results_of(folder, suite, mode), (before, before, *after))  # noqa: B023
            if not first["results"]:
                say(f"{suite} {mode}: not compared: {first['about']}")
                continue
            stable = {name for name, value in first["results"].items() if again["results"].get(name) == value}
            failing = {name for name in stable if ": " in first["results"][name]}
            for folder, answer in zip(after, others, strict=True):
                bad = sorted(name for name in stable if answer["results"].get(name) != first["results"][name])
                strays = foreign(folder, answer["loaded"])
                below = sum(path.startswith(str(site_of(folder).resolve())) for path in answer["loaded"])
                differing += len(bad) + len(strays)
                say(
                    f"{suite} {mode}, {folder.name}: {first['about']}: {len(stable - failing - set(bad))} of {len(stable - failing)} operations "
                    f"bit-identical; {below} libraries loaded from the folder; {time.monotonic() - start:.0f} s"
                )
                for name in bad:
                    say(f"  DIFFERS: {name}: {first['results'][name][:200]} / {str(answer['results'].get(name, answer['about']))[:200]}")
                for path in strays:
                    say(f"  LOADED FROM ELSEWHERE: {path}")
            for name in sorted(set(first["results"]) - stable):
                say(f"  not repeatable: {name}")
            for name in sorted(failing):
                say(f"  fails in all: {name}: {first['results'][name][:160]}")
    return differing


def copied(site: Path, to: Path) -> Path:
    """A copy of a folder; files are hard links where that is possible, since slim never writes into a file that others share."""
    shutil.rmtree(to, ignore_errors=True)

    def link(source: str, target: str) -> str:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
        return target

    shutil.copytree(site, to, symlinks=True, copy_function=link, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def slimmed(site: Path, to: Path, more: tuple[str, ...], say: Any) -> dict[str, Any]:
    """Copy, slim, and say what that took and gave; slim's own document."""
    start = time.monotonic()
    copied(site, to)
    copying = time.monotonic() - start
    start = time.monotonic()
    command = [sys.executable, "-m", "fatpatch", "slim", str(to), "--for", "auto", "--in-place", "--no-undo", "--format", "json", *more]
    done = subprocess.run([*command, "--jobs", str(os.cpu_count() or 1)], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    document = json.loads(done.stdout) if done.stdout else {"packages": []}
    own = {row["path"]: row for package in document["packages"] for row in package["libraries"] if row["code_before"]}
    pytorchs = {row["path"] for package in document["packages"] if package["name"].startswith(PYTORCH) for row in package["libraries"]}
    say(
        f"slim {to.name} {' '.join(more)}: exit {done.returncode}, {seconds:.0f} s on {os.cpu_count()} processors (copied in {copying:.0f} s)"
    )
    for name, rows in (("PyTorch's", [row for path, row in own.items() if path in pytorchs]), ("all", list(own.values()))):
        before, after = (sum(row[key] for row in rows) / 1e9 for key in ("disk_before", "disk_after"))
        say(f"  {name}: {len(rows)} libraries with device code, {before:.3f} -> {after:.3f} GB on disk")
    for row in own.values():
        if row["status"] in ("left alone", "failed"):
            say(f"  {row['status']}: {row['path']}: {row['reason']}")
    if done.returncode:
        say(done.stderr[-2000:])
    return document


def run(env: Path, scratch: Path, out: Path | None, suites: Iterable[str] = SUITES) -> int:
    """Copy, slim, compare."""
    lines: list[str] = []

    def say(line: str) -> None:
        print(line, flush=True)
        lines.append(line)
        if out is not None:
            (out / "slim.txt").write_text("\n".join(lines) + "\n")

    site = site_of(env)
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    say(f"{'; '.join(driver)}; {site}")
    folders = []
    for name, more in (("slimmed", ()), ("least", (*LEAST, "--driver", driver[0].split(",")[-1].strip()))):
        document = slimmed(site, scratch / name, more, say)
        if out is not None:
            (out / f"{name}.json").write_text(json.dumps(document))
        folders.append(scratch / name)
    return compare(site, folders, say, suites)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["compute", "compare", "run"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--suite", action="append", choices=SUITES, help="only these")
    given = parser.parse_args()
    if given.action == "compute":
        print(json.dumps(compute(given.names[0])))
        return 0
    if given.action == "compare":
        before, *after = map(Path, given.names)
        return min(compare(before, after, print, given.suite or SUITES), 1)
    return min(run(Path(given.names[0]) if given.names else Path(sys.prefix), given.scratch, given.out, given.suite or SUITES), 1)


if __name__ == "__main__":
    sys.exit(main())
