#!/usr/bin/env python3
"""Build the AMD samples of this folder from samples/src and enter them in MANIFEST.toml.

Needs clang, lld and lld-link of LLVM 22 on PATH, as clang-22 or clang. No GPU, no ROCm. A second run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TARGETS = ("gfx906", "gfx1030", "gfx1100")
HIP = ("-x", "hip", "-nogpuinc", "-nogpulib", "-Os", "--std=c++17", "--no-default-config")
LINUX, WINDOWS = ("--target=x86_64-unknown-linux-gnu", "-fPIC"), ("--target=x86_64-pc-windows-msvc",)


def tool(name: str) -> str:
    """The path of an LLVM 22 tool."""
    path = shutil.which(f"{name}-22") or shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not on PATH")
    return path


def compiled(folder: Path, host: tuple[str, ...], *options: str) -> list[Path]:
    """Both HIP sources, a bundle each, and the stand-in for the runtime, as objects."""
    objects = []
    for name in ("hipdemo", "hipsum"):
        objects.append(folder / f"{name}.o")
        archs = [f"--offload-arch={target}" for target in TARGETS]
        run(tool("clang"), *host, *HIP, *archs, *options, f"-cuid={name}", "-c", HERE / f"src/{name}.hip", "-o", objects[-1])
    objects.append(folder / "runtime.o")
    run(tool("clang"), *host, "-Os", "-Wno-everything", "-c", HERE / "src/hip_runtime.c", "-o", objects[-1])
    return objects


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True)


def main() -> None:
    """Write the three samples."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = compiled(folder, LINUX)
        run(tool("ld.lld"), "-shared", "--hash-style=gnu", "--build-id=none", "-s", *objects, "-o", HERE / "libhipdemo.so")
        objects = compiled(folder, WINDOWS, "--offload-compress")
        run(tool("lld-link"), "/dll", "/noentry", "/nodefaultlib", "/brepro", "/noimplib", f"/out:{HERE / 'hipdemo.dll'}", *objects)
    device = ("--cuda-device-only", "--no-gpu-bundle-output", "--offload-arch=gfx1031")
    run(tool("clang"), *HIP, *device, "-cuid=hipdemo", HERE / "src/hipdemo.hip", "-o", HERE / "hipdemo.gfx1031.hsaco")
    manifest = HERE / "MANIFEST.toml"
    text = manifest.read_text().split("\n# Written by samples/build_hip.py\n")[0].rstrip() + "\n\n# Written by samples/build_hip.py\n"
    for path in sorted((HERE / "libhipdemo.so", HERE / "hipdemo.dll", HERE / "hipdemo.gfx1031.hsaco")):
        data = path.read_bytes()
        text += f'\n["{path.name}"]\nsha256 = "{hashlib.sha256(data).hexdigest()}"\nsize = {len(data)}\n'
        text += 'source = "own source in samples/src"\nlicence = "MIT"\ncommand = "python samples/build_hip.py"\n'
        text += 'tools = "clang and lld 22.1.8 of Debian"\n'
    manifest.write_text(text)


if __name__ == "__main__":
    main()
