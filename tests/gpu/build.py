#!/usr/bin/env python3
"""Build the inputs of the GPU cases from src/: linked files with sm_75 code only, and the sm_90 and PTX images to graft.

usage: build.py OUTDIR

Needs nvcc 13.0 (on PATH, or named by the variable NVCC), gcc, strip, and GNU ld 2.38 or newer for the RELR file. No GPU.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "src"
CUDART = "libcudart.so.13"
MODULES = ("a", "b")
SM_75 = ("-gencode", "arch=compute_75,code=sm_75")
SM_90 = ("-gencode", "arch=compute_90,code=sm_90")
FAT = ("-gencode", "arch=compute_75,code=sm_75", "-gencode", "arch=compute_86,code=sm_86", *SM_90)  # for what is taken out again
HIGH = {level: ("-gencode", "arch=compute_75,code=sm_75", "-gencode", f"arch=compute_{level},code=compute_{level}") for level in (100, 120)}
PIC = ("-Xcompiler", "-fPIC")
STAMP = (2024, 1, 1, 0, 0, 0)
# Every compilation runs in src/ with the bare file name: the names of anonymous-namespace kernels hold a hash of the folder.
COMPILED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("{}.sm_75.o", ("-c", *SM_75, *PIC)),
    ("{}.nopie.sm_75.o", ("-c", *SM_75, "-Xcompiler", "-fno-pie")),
    ("{}.rdc.sm_75.o", ("-c", "-rdc=true", *SM_75, *PIC)),
    ("{}.sm_90.o", ("-c", *SM_90, *PIC)),
    ("{}.rdc.sm_90.o", ("-c", "-rdc=true", *SM_90, *PIC)),
    ("{}.sm_90.cubin", ("-cubin", "-arch=sm_90")),
    ("{}.rdc.sm_90.cubin", ("-cubin", "-rdc=true", "-arch=sm_90")),
    ("{}.compute_75.ptx", ("-ptx", "-arch=compute_75")),
    ("{}.fat.o", ("-c", *FAT, *PIC)),
    ("{}.nopie.fat.o", ("-c", *FAT, "-Xcompiler", "-fno-pie")),
    ("{}.rdc.fat.o", ("-c", "-rdc=true", *FAT, *PIC)),
    *((f"{{}}.{level}.o", ("-c", *options, *PIC)) for level, options in HIGH.items()),
)


def nvcc() -> str:
    """The compiler to use."""
    found = os.environ.get("NVCC") or shutil.which("nvcc")
    if not found:
        raise SystemExit("nvcc is missing: put it on PATH or name it in the variable NVCC")
    return found


def run(*command: str | Path, folder: Path = SOURCES) -> str:
    """Run a command and give back what it wrote."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def cudart_library() -> Path:
    """The shared CUDA runtime: the toolkit's, else the one of the pip package nvidia-cuda-runtime."""
    top = re.search(r"^#\$ TOP=(.+)$", run(nvcc(), "--dryrun", "-c", "a.cu", "-o", "/dev/null"), re.MULTILINE)
    folders = [Path(top[1].strip()) / sub for sub in ("lib64", "lib", "targets/x86_64-linux/lib")] if top else []
    folders += [Path(folder) / "nvidia/cu13/lib" for folder in sys.path]
    for folder in folders:
        if (folder / CUDART).is_file():
            return folder / CUDART
    raise SystemExit(f"{CUDART} is missing: pip install nvidia-cuda-runtime")


def link(objects: Sequence[str], output: str, *options: str, folder: Path) -> None:
    """Link with nvcc, static runtime unless told."""
    runtime = () if "-cudart" in options else ("-cudart", "static")
    run(nvcc(), *runtime, *options, *objects, "-o", output, folder=folder)


def record(members: dict[str, bytes], info: str) -> bytes:
    """The RECORD of a wheel: a hash and a size for every other member."""
    rows = []
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{name},sha256={digest},{len(data)}\n")
    return ("".join(rows) + f"{info}/RECORD,,\n").encode()


def wheel(library: Path, output: Path) -> None:
    """A wheel with one library, deflated."""
    info = "gpucase-1.0.dist-info"
    members = {
        "gpucase/__init__.py": b'"""A library to graft."""\n',
        "gpucase/liba.so": library.read_bytes(),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: gpucase\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: fatpatch tests\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n",
    }
    members[f"{info}/RECORD"] = record(members, info)
    with zipfile.ZipFile(output, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name, STAMP)
            entry.external_attr = (0o755 if name.endswith(".so") else 0o644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)


def compile_all(objects: Path, output: Path) -> None:
    """Every object, cubin and PTX text."""
    jobs = []
    for module in MODULES:
        for pattern, options in COMPILED:
            name = pattern.format(module)
            jobs.append((nvcc(), *options, f"{module}.cu", "-o", str((objects if name.endswith(".o") else output) / name)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda command: run(*command), jobs))


def link_all(objects: Path, output: Path) -> None:
    """Every library and program."""
    plain, fixed, rdc, new, rdc_new = (
        [str(objects / f"{module}.{flavour}.o") for module in MODULES]
        for flavour in ("sm_75", "nopie.sm_75", "rdc.sm_75", "sm_90", "rdc.sm_90")
    )
    relr = ("-Xlinker", "-z", "-Xlinker", "pack-relative-relocs")
    origin = ("-Xlinker", "-rpath", "-Xlinker", "$ORIGIN")
    shared = ("-shared", *SM_75, *PIC)
    link(plain, "liba-static.so", *shared, folder=output)
    link(plain, "liba-shared.so", *shared, "-cudart", "shared", *origin, folder=output)
    link(plain, "liba-relr.so", *shared, *relr, folder=output)
    link(plain, "liba-nonote.so", *shared, "-Xlinker", "--build-id=none", folder=output)
    link(rdc, "liba-rdc.so", *shared, "-rdc=true", folder=output)
    link(new, "donor.so", "-shared", *SM_90, *PIC, folder=output)
    link(rdc_new, "donor-rdc.so", "-shared", *SM_90, *PIC, "-rdc=true", folder=output)
    run(nvcc(), "-dlink", "-cubin", "-arch=sm_90", *rdc_new, "-o", "linked.sm_90.cubin", folder=output)
    fat, fat_fixed, fat_rdc = (
        [str(objects / f"{module}.{flavour}.o") for module in MODULES] for flavour in ("fat", "nopie.fat", "rdc.fat")
    )
    wide = ("-shared", *FAT, *PIC)
    link(fat, "libfat-static.so", *wide, folder=output)
    link(fat, "libfat-relr.so", *wide, *relr, folder=output)
    link(fat, "libfat-nonote.so", *wide, "-Xlinker", "--build-id=none", folder=output)
    link(fat_rdc, "libfat-rdc.so", *wide, "-rdc=true", folder=output)
    for level, options in HIGH.items():
        link([str(objects / f"{module}.{level}.o") for module in MODULES], f"libhigh-{level}.so", "-shared", *options, *PIC, folder=output)
    run(nvcc(), *HIGH[100], *PIC, "-shared", "-cudart", "static", "partly.cu", "-o", output / "libpartly.so")
    run("strip", "-s", "-o", "libfat-stripped.so", "libfat-static.so", folder=output)
    run("strip", "-s", "-o", "liba-stripped.so", "liba-static.so", folder=output)
    run("gcc", "-O1", "-Wall", "-Wextra", SOURCES / "runlib.c", "-o", "runlib", "-ldl", folder=output)
    for name, flag, code in (
        ("program-pie", "-pie", plain),
        ("program-nopie", "-no-pie", fixed),
        ("fat-pie", "-pie", fat),
        ("fat-nopie", "-no-pie", fat_fixed),
    ):
        main = objects / f"{name}.o"
        run("gcc", "-O1", "-Wall", "-Wextra", "-DLINKED", f"-f{'no-' * (flag == '-no-pie')}pie", "-c", SOURCES / "runlib.c", "-o", main)
        link([str(main), *code], name, *(FAT if name.startswith("fat") else SM_75), "-Xcompiler", flag, folder=output)
    shutil.copyfile(cudart_library(), output / CUDART)
    wheel(output / "liba-static.so", output / "gpucase-1.0-py3-none-linux_x86_64.whl")


def main() -> None:
    """Build and print what was built."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("outdir", type=Path)
    output: Path = parser.parse_args().outdir.resolve()
    objects = output / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    print(re.findall(r"release .+", run(nvcc(), "--version"))[0])
    compile_all(objects, output)
    link_all(objects, output)
    for path in sorted(output.iterdir()):
        if path.is_file():
            print(f"{path.stat().st_size:9,d}  {path.name}")


if __name__ == "__main__":
    main()
