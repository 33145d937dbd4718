"""Compare what an H100 did with the fifty libraries and the PTX texts with what fatpatch's doctor says of them.

Usage: doctor_compare.py KIT-LIBS RESULTS, where KIT-LIBS holds the libraries with libs.json, RESULTS the files that doctor_drive.py wrote.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from fatpatch.gpucode import flow
from fatpatch.gpucode.fatbin.driver_view import driver_view
from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.gpus.devices import find
from fatpatch.gpus.drivers import driver
from fatpatch.scan.walk import inspected
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.jit import FASTEST, SLOWEST, estimated
from fatpatch.verdicts.judge import Doctor
from fatpatch.verdicts.module import KernelVerdict
from fatpatch.verdicts.results import FileVerdict

LIMIT = 1 << 28


def environment(variables: dict[str, str]) -> Environment:
    """The environment of a run, as doctor's options would give it."""
    on = {name for name, value in variables.items() if value not in ("", "0")}
    return Environment(
        find("sm_90"),
        driver("580.159.04"),
        force_ptx=bool(on & {"CUDA_FORCE_PTX_JIT", "CUDA_FORCE_JIT"}),
        disable_ptx=bool(on & {"CUDA_DISABLE_PTX_JIT", "CUDA_DISABLE_JIT"}),
        eager=variables.get("CUDA_MODULE_LOADING") == "EAGER",
    )


def said(found: FileVerdict, offset: int) -> tuple[Any, str, dict[str, KernelVerdict]]:
    """(error, "crash" or "hang", else the position of the chosen entry; the reason; its kernels) of one module."""
    module = next(module for module in found.modules if module.payload.offset == offset)
    verdict = module.verdict
    kernels = {kernel.name: kernel for kernel in verdict.kernels}
    if verdict.outcome is not None:
        return verdict.outcome, verdict.reason, kernels
    if verdict.image is None or (verdict.cuda_error is not None and not kernels):
        return verdict.cuda_error, verdict.reason, kernels
    offsets = [image.offset for image in driver_view(module.node.source, offset, "").images if image.kind != "concat"]
    return ("image", offsets.index(verdict.image.offset)), verdict.reason, kernels


def libraries(folder: Path, results: Path) -> None:
    """One line for each call that differs, then the count."""
    manifest = json.loads((folder / "libs.json").read_text())
    answers = {(run["file"], run["name"]): run["calls"] for run in json.loads(results.read_text())["runs"]}
    counts: Counter[str] = Counter()
    for library in manifest["libraries"]:
        with inspected(str(folder / library["file"])) as node:
            doctor = Doctor(node, limit=LIMIT)
            for run in library["runs"]:
                found = doctor.judge(environment(run["environment"]))
                for module in library["modules"]:
                    told = said(found, module["fatbin_offset"])
                    for call, answer in answers[(library["file"], run["name"])].items():
                        if call.split("_")[0] == module["module"]:
                            compare(counts, library, run["name"], module, call, answer["found"], told)
    print(dict(counts))


def compare(
    counts: Counter[str], library: dict[str, Any], run: str, module: dict[str, Any], call: str, answer: dict[str, Any], told: Any
) -> None:
    """Count one call as equal or print it."""
    word, reason, kernels = told
    if "setup" in answer:
        counts["the process failed before the call"] += 1
        return
    if "end" in answer:
        actual: Any = answer["end"].split()[0]
    elif answer.get("launch"):
        actual = answer["launch"]
    elif answer.get("sync"):
        actual = answer["sync"]
    else:
        marks = [entry["mark"] for entry in module["entries"] if not entry["what"].startswith("concat")]
        actual = ("image", marks.index(answer["mark"])) if answer.get("mark") in marks else ("mark", answer.get("mark"))
    plain = call.split(":")[0].split("_", 1)[1]
    kernel = next(
        (kernel for name, kernel in kernels.items() if name == f"k_{plain}" or name.endswith(plain) or f"_{plain}P" in name), None
    )
    if actual == word or (isinstance(word, tuple) and fits(actual, kernel)):
        counts["equal"] += 1
        return
    counts["differs"] += 1
    print(f"{library['file']} {run} {call}: H100 {actual}, doctor {word} {kernel and kernel.body}; {reason}")


def fits(actual: Any, kernel: KernelVerdict | None) -> bool:
    """Whether what a kernel did is what its body, or its absence, makes it do."""
    if kernel is None or kernel.body == "missing":
        return bool(actual == 500)
    if kernel.note.startswith("error "):
        return bool(actual == int(kernel.note.split()[1]))
    if actual == 719:
        return kernel.body in flow.STUBS | {flow.HAS_TRAP}
    return (
        isinstance(actual, tuple)
        and actual[0] == "mark"
        and actual[1] in (-1, 0)
        and kernel.body in flow.STUBS | {flow.EMPTY, flow.CALL_ONLY}
    )


def texts(folder: Path, results: Path) -> None:
    """Estimate and measurement of each text."""
    ratios = []
    for row in json.loads(results.read_text())["modules"]:
        cost = estimated(PtxText((folder / row["file"]).read_bytes().rstrip(b"\0")))
        seconds = min(wall for wall, _ in row["times"])
        ratios.append(seconds / cost.seconds)
        inside = FASTEST <= ratios[-1] <= SLOWEST
        print(
            f"{row['file']} {row['package']:45} {row['bytes']:>9} estimated {cost.seconds:6.2f} s, measured {seconds:6.2f} s, ratio {ratios[-1]:.2f}{'' if inside else '  outside'}"
        )
    ratios.sort()
    print(f"median {ratios[len(ratios) // 2]:.2f}, from {ratios[0]:.2f} to {ratios[-1]:.2f}")


def main() -> None:
    folder, results = Path(sys.argv[1]), Path(sys.argv[2])
    libraries(folder, results / "doctor-libs.json")
    texts(folder.parent / "ptx", results / "jit.json")


if __name__ == "__main__":
    main()
