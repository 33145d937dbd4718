#!/usr/bin/env python3
"""Build the fifty libraries of doctor_libs and fetch the twenty PTX texts of doctor_ptx: the kit for the machine with the GPU.

usage: doctor_build.py [OUTDIR]        (default .gpu; only OUTDIR/kit has to travel)

OUTDIR/libs holds the libraries and libs.json, OUTDIR/ptx the texts and ptx.json, OUTDIR/kit both as archives.
Needs nvcc 13.0 (PATH or NVCC), gcc, objcopy, npm, and the pip packages nvidia-cuda-nvrtc-cu12 12.9, nvidia-cuda-nvcc-cu12 12.9,
nvidia-nvfatbin 13.5, lz4, zstandard. No GPU.
"""

from __future__ import annotations

import argparse
import json
import lzma
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from doctor_images import SOURCES, fatbin_of, run, tool13, toolkit
from doctor_libs import ENVIRONMENTS, LIBRARIES, Entry, Library, expected
from doctor_ptx import collect, downloaded

RUNTIME_12 = "nvidia-cuda-runtime-cu12==12.9.79"
MANGLED = "_Z{}{}Pii"
LIMITS = {"crash": 4, "hang": 4}
KIND_WORDS = {1: "PTX", 2: "SASS", 8: "LTO", 0x40: "reloc-PTX", 0x100: "concat"}


def cudart_12(folder: Path) -> Path:
    """The folder with the runtime 12.9, unpacked from its pip package."""
    with zipfile.ZipFile(downloaded(RUNTIME_12, folder)) as archive:
        archive.extractall(folder / "cudart12")
    return folder / "cudart12/nvidia/cuda_runtime/lib"


def host_object(library: Library, number: int, folder: Path) -> Path:
    """The compiled host side of module `number`; its images are still to be replaced."""
    source, name = library.modules[number].source, f"m{number}"
    path = folder / f"{library.host.split('-')[0]}-{source}-{name}{'-weak' * library.shared_stub}.o"
    if path.exists():
        return path
    if library.host == "c":
        mangled = MANGLED.format(len(name) + 2, f"{name}_b")
        include = f"-I{toolkit().parent}/targets/x86_64-linux/include"
        words = ("-O1", "-Wall", "-Wextra", "-fPIC", include, f"-DMOD={name}", f'-DMANGLED="{mangled}"')
        run("gcc", *words, "-c", SOURCES / f"doctor_{source}.c", "-o", path)
    else:
        weak = ["-static-global-template-stub=false"] * library.shared_stub
        words = ("-c", "-arch=sm_90", "-Xcompiler", "-fPIC", f"-DMOD={name}", *weak)
        run(tool13("nvcc"), *words, SOURCES / f"doctor_{source}.cu", "-o", path)
    return path


def link(library: Library, objects: list[Path], output: Path, runtime_12: Path) -> None:
    """Make the shared object."""
    runtime_13 = toolkit().parent / "lib"
    if library.host == "nvcc-dlink":
        code = [word for arch in (75, 90) for word in ("-gencode", f"arch=compute_{arch},code=sm_{arch}")]
        run(tool13("nvcc"), "-shared", "-Xcompiler", "-fPIC", "-cudart", "static", *code, *objects, "-o", output)
        return
    version, kind = library.cudart.split("-")
    folder = runtime_13 if version == "13" else runtime_12
    if kind == "static":
        words = [str(folder / "libcudart_static.a"), "-lrt", "-lpthread", "-ldl"]
    else:
        words = [str(folder / f"libcudart.so.{version}"), "-Wl,-rpath,$ORIGIN"]
        shutil.copy2(folder / f"libcudart.so.{version}", output.parent)
    run("g++", "-shared", *objects, *words, "-o", output)


def describe(entry: Entry) -> str:
    """An entry in a few words."""
    kind = KIND_WORDS.get(entry.kind, f"kind {entry.kind:#x}")
    parts = [kind, entry.target or "junk", f"label {entry.arch}", f"flags {entry.bits:#x}", entry.codec]
    parts += [f"toolkit {entry.tool}"] if entry.target or entry.inner else []
    parts += [f"version {entry.version}"] if entry.version else []
    parts += [f"options {entry.options.decode()!r}"] if entry.options else []
    parts += [*entry.edits, *entry.defines, *(f"[{describe(inner)}]" for inner in entry.inner)]
    return ", ".join(parts)


def symbol(source: str, call: str) -> str:
    """The kernel behind a call such as m0_b or m0_early:1."""
    module, name = call.split(":")[0].split("_")
    if source == "same":
        return "_Z4sameILi7EEvPii"
    return MANGLED.format(len(module) + 2, f"{module}_{name}") if name == "b" else f"{module}_{name}"


def first_mark(index: int, number: int) -> int:
    """The mark of the first entry of a module: library 12, module 1, gives 12101."""
    return (index + 1) * 1000 + number * 100 + 1


def row_of(library: Library, index: int, output: Path, fatbins: list[bytes]) -> dict[str, object]:
    """What the manifest says about a library."""
    data = output.read_bytes()
    modules: list[dict[str, object]] = []
    for number, (module, fatbin) in enumerate(zip(library.modules, fatbins, strict=True)):
        if data.count(fatbin) != 1:
            raise SystemExit(f"{output.name}: module {number} occurs {data.count(fatbin)} times")
        modules.append(
            {
                "module": f"m{number}",
                "fatbin_offset": data.index(fatbin),
                "fatbin_bytes": len(fatbin),
                "container_change": module.container or None,
                "made_by": module.maker,
                "kernels": sorted({symbol(module.source, f"m{number}_{call}") for call in module.calls}),
                "entries": [
                    {"mark": first_mark(index, number) + position, "what": describe(entry)} for position, entry in enumerate(module.entries)
                ],
            }
        )
    runs: list[dict[str, object]] = []
    for environment in library.environments:
        calls: dict[str, dict[str, object]] = {}
        for number, module in enumerate(library.modules):
            for call in module.calls:
                answer, entry = expected(library, number, call, environment)
                if entry:
                    home = 0 if library.shared_stub else number
                    answer["mark"] = first_mark(index, home) + library.modules[home].entries.index(entry)
                calls[f"m{number}_{call}"] = answer
        runs.append({"name": environment, "environment": ENVIRONMENTS[environment], "alone": library.alone, "expected": calls})
    return {
        "file": output.name,
        "rules": library.words,
        "host": library.host,
        "cudart": library.cudart,
        "one_host_stub": library.shared_stub,
        "modules": modules,
        "runs": runs,
    }


def build(index: int, library: Library, folder: Path, runtime_12: Path) -> dict[str, object]:
    """One library; its row of the manifest."""
    objects_folder = folder / "objects"
    objects, fatbins = [], []
    for number, module in enumerate(library.modules):
        fatbin = fatbin_of(module, f"m{number}", first_mark(index, number))
        path = objects_folder / f"l{index + 1:02d}-m{number}"
        path.with_suffix(".fatbin").write_bytes(fatbin)
        update = f".nv_fatbin={path.with_suffix('.fatbin')}"
        run("objcopy", "--update-section", update, host_object(library, number, objects_folder), path.with_suffix(".o"))
        objects.append(path.with_suffix(".o"))
        fatbins.append(fatbin)
    output = folder / "libs" / f"l{index + 1:02d}.so"
    link(library, objects, output, runtime_12)
    return row_of(library, index, output, fatbins)


def check(rows: list[dict[str, object]]) -> None:
    """Crashes and hangs cost time and hide what comes after them: few, and each in its own process."""
    ends: dict[str, int] = dict.fromkeys(LIMITS, 0)
    for row in rows:
        for one in row["runs"]:  # type: ignore[attr-defined]
            for answer in one["expected"].values():
                if "end" in answer:
                    if not one["alone"]:
                        raise SystemExit(f"{row['file']}: {answer['end']} expected among other calls ({one['name']})")
                    ends[answer["end"]] += 1
    for name, most in LIMITS.items():
        if ends[name] > most:
            raise SystemExit(f"{ends[name]} times {name} expected, at most {most}")


def pack(path: Path, folder: Path) -> None:
    """One archive of a folder; a large window, since the libraries are near copies of each other."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 26}]
    with lzma.open(path, "wb", filters=filters) as stream, tarfile.open(fileobj=stream, mode="w") as archive:
        for name in sorted(folder.iterdir()):
            archive.add(name, name.name)
    print(f"{path} is {path.stat().st_size:,d} bytes")


def main() -> None:
    """Build, describe, pack."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("outdir", type=Path, nargs="?", default=Path(".gpu"))
    parser.add_argument("--without-ptx", action="store_true", help="only the libraries")
    arguments = parser.parse_args()
    folder: Path = arguments.outdir.resolve()
    for name in ("libs", "objects", "kit"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    (folder / "downloads").mkdir(exist_ok=True)
    runtime_12 = cudart_12(folder / "downloads")
    rows = [build(index, library, folder, runtime_12) for index, library in enumerate(LIBRARIES)]
    check(rows)
    run("gcc", "-O1", "-Wall", "-Wextra", SOURCES / "doctor_runner.c", "-o", folder / "libs/doctor_runner", "-ldl")
    manifest = {"schema": 1, "device": "sm_90", "driver": "580.159.04", "libraries": rows}
    (folder / "libs/libs.json").write_text(json.dumps(manifest, indent=1) + "\n")
    pack(folder / "kit/libs.tar.xz", folder / "libs")
    if not arguments.without_ptx:
        collect(folder / "downloads", folder / "ptx")
        run("gcc", "-O1", "-Wall", "-Wextra", SOURCES / "doctor_jit.c", "-o", folder / "ptx/doctor_jit", "-ldl")
        pack(folder / "kit/ptx.tar.xz", folder / "ptx")


if __name__ == "__main__":
    main()
