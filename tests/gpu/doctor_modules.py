"""Real fatbins, each alone: what a GPU answers to them against what doctor says. Three steps:

prepare FOLDER LIBRARY...   carve fatbins of the libraries into FOLDER (here)
run FOLDER OUT.json         load each in a process of its own, under three environments (on the machine with the GPU; stdlib only)
compare FOLDER OUT.json     against doctor (here)
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

EACH = 24
LARGEST = 500_000
RUNS: dict[str, dict[str, str]] = {"default": {}, "force": {"CUDA_FORCE_PTX_JIT": "1"}, "eager": {"CUDA_MODULE_LOADING": "EAGER"}}
BINARY_VERSION, PTX_VERSION = 6, 5


def prepare(folder: Path, libraries: list[str]) -> None:
    """Carve up to EACH fatbins of every library, spread over it, none above LARGEST bytes."""
    from fatpatch.scan.coverage import payloads_below
    from fatpatch.scan.walk import inspected

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for library in libraries:
        with inspected(library) as node:
            fitting = [pair for pair in payloads_below(node) if pair[1].kind == "fatbin" and pair[1].size <= LARGEST]
            for holder, payload in fitting[:: max(1, len(fitting) // EACH)][:EACH]:
                assert holder.source is not None
                name = f"{len(rows):04}.fatbin"
                (folder / name).write_bytes(holder.source.read(payload.offset, payload.size))
                rows.append({"file": name, "from": payload.locator})
    (folder / "modules.json").write_text(json.dumps(rows, indent=1))
    print(len(rows), "fatbins", sum(path.stat().st_size for path in folder.iterdir()) / 1e6, "MB")


def load(path: str) -> None:
    """Child: load one fatbin with the driver API and print what it answers."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, device, module, count = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_void_p(), ctypes.c_uint()
    assert cuda.cuInit(0) == 0
    assert cuda.cuDeviceGet(ctypes.byref(device), 0) == 0
    assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
    assert cuda.cuCtxSetCurrent(context) == 0
    data = Path(path).read_bytes()
    code = cuda.cuModuleLoadData(ctypes.byref(module), ctypes.c_char_p(data))
    versions = set()
    if code == 0:
        cuda.cuModuleGetFunctionCount(ctypes.byref(count), module)
        functions = (ctypes.c_void_p * count.value)()
        cuda.cuModuleEnumerateFunctions(functions, count.value, module)
        for function in functions:
            values = []
            for attribute in (BINARY_VERSION, PTX_VERSION):
                value = ctypes.c_int()
                cuda.cuFuncGetAttribute(ctypes.byref(value), attribute, ctypes.c_void_p(function))
                values.append(value.value)
            versions.add(tuple(values))
    print(json.dumps({"rc": code, "functions": count.value, "versions": sorted(versions)}))


def run(folder: Path, out: Path) -> None:
    """Every fatbin under every environment, eight at a time."""
    rows = json.loads((folder / "modules.json").read_text())

    def one(job: tuple[dict[str, str], str]) -> dict[str, Any]:
        row, name = job
        environment = {**os.environ, "CUDA_CACHE_DISABLE": "1", **RUNS[name]}
        command = [sys.executable, __file__, "load", str(folder / row["file"])]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            return {**row, "run": name, "answer": "hang"}
        answer = json.loads(done.stdout) if done.returncode == 0 else "crash" if done.returncode < 0 else done.stderr[-200:]
        return {**row, "run": name, "answer": answer}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, [(row, name) for row in rows for name in RUNS]))
    out.write_text(json.dumps(answers))
    print(len(answers), "loads")


def compare(folder: Path, results: Path) -> None:
    """Print what differs, then the count."""
    from doctor_compare import LIMIT, environment

    from fatpatch.scan.walk import inspected
    from fatpatch.verdicts.facts import arch_of
    from fatpatch.verdicts.judge import Doctor

    equal = different = 0
    for row in json.loads(results.read_text()):
        with inspected(str(folder / row["file"])) as node:
            module = Doctor(node, limit=LIMIT).judge(environment(RUNS[row["run"]])).modules[0].verdict
        loose = module.cuda_error in (200, 500) and bool(module.kernels) and row["run"] != "eager"  # fails at first use only
        said: Any = module.outcome or (0 if loose else module.cuda_error or 0)
        answer = row["answer"]
        same = (answer["rc"] if isinstance(answer, dict) else answer) == said
        if same and isinstance(answer, dict) and answer["versions"] and module.image is not None:
            same = {ptx for _, ptx in answer["versions"]} == {arch_of(module.image)}
            same = same and answer["functions"] == sum(kernel.body != "missing" for kernel in module.kernels)
        equal, different = equal + same, different + (not same)
        if not same:
            print(row["from"], row["run"], "GPU", answer, "doctor", said, module.target, len(module.kernels), module.reason)
    print(equal, "equal,", different, "different")


if __name__ == "__main__":
    step, *rest = sys.argv[1:]
    if step == "prepare":
        prepare(Path(rest[0]), rest[1:])
    elif step == "load":
        load(rest[0])
    elif step == "run":
        run(Path(rest[0]), Path(rest[1]))
    else:
        compare(Path(rest[0]), Path(rest[1]))
