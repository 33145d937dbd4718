#!/usr/bin/env python3
"""Build every file of this folder from samples/src and write MANIFEST.toml.

usage: build.py --ape PLEDGE     (PLEDGE: cosmo_ent/data/pledge of the PyPI package cosmo-ent 1.4.4, ISC licence)

Needs: pip install nvidia-cuda-nvrtc-cu12==12.9.86 nvidia-nvfatbin-cu12==12.9.82 nvidia-nvfatbin==13.5.37; gcc, x86_64-w64-mingw32-gcc. No GPU, no CUDA
toolkit. Time stamps are fixed, so that a second run with the same tools gives the same bytes.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib.util
import struct
import subprocess
import tempfile
import zipfile
import zlib
from pathlib import Path

HERE = Path(__file__).parent
ALIGNMENT = 1 << 16
STAMP = (2024, 1, 1, 0, 0, 0)
DEMO_TARGETS = ("sm_60", "sm_70", "sm_75")
DONOR_TARGETS = ("sm_61",)
ALL_TARGETS = ("sm_50", "sm_61", "sm_75", "sm_80", "sm_90", "sm_90a", "sm_100", "sm_100f", "sm_120")
PTX_TARGETS = ("compute_52", "compute_90")


def library(package: str, name: str) -> ctypes.CDLL:
    """A shared library out of a pip package of NVIDIA."""
    spec = importlib.util.find_spec(f"nvidia.{package}")
    assert spec is not None and spec.submodule_search_locations
    return ctypes.CDLL(str(Path(next(iter(spec.submodule_search_locations))) / "lib" / name))


class Compiler:
    """NVRTC: CUDA C++ to cubin or PTX."""

    def __init__(self) -> None:
        self.nvrtc = library("cuda_nvrtc", "libnvrtc.so.12")

    def compile(self, source: Path, target: str, *options: str) -> bytes:
        program = ctypes.c_void_p()
        self.check(self.nvrtcCreate(program, source))
        arguments = [f"--gpu-architecture={target}".encode(), b"--std=c++17", *(option.encode() for option in options)]
        if self.nvrtc.nvrtcCompileProgram(program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)):
            raise SystemExit(self.output(program, "nvrtcGetProgramLog", "nvrtcGetProgramLogSize").decode())
        kind = "PTX" if target.startswith("compute") else "CUBIN"
        return self.output(program, f"nvrtcGet{kind}", f"nvrtcGet{kind}Size")

    def nvrtcCreate(self, program: ctypes.c_void_p, source: Path) -> int:  # noqa: N802
        return self.nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)

    def output(self, program: ctypes.c_void_p, get: str, get_size: str) -> bytes:
        size = ctypes.c_size_t()
        self.check(getattr(self.nvrtc, get_size)(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self.check(getattr(self.nvrtc, get)(program, buffer))
        return buffer.raw

    @staticmethod
    def check(code: int) -> None:
        if code:
            raise SystemExit(f"NVRTC error {code}")


def fatbin(images: list[tuple[str, bytes]], *options: str, lib: ctypes.CDLL | None = None) -> bytes:
    """A fatbin by NVIDIA's own nvFatbin library: an independent builder."""
    lib = lib or library("nvfatbin", "libnvfatbin.so.12")
    handle = ctypes.c_void_p()
    arguments = [option.encode() for option in options]
    codes = [lib.nvFatbinCreate(ctypes.byref(handle), (ctypes.c_char_p * len(arguments))(*arguments), ctypes.c_size_t(len(arguments)))]
    for target, data in images:
        arch = target.split("_")[1].encode()
        if target.startswith("compute"):
            codes.append(lib.nvFatbinAddPTX(handle, data, ctypes.c_size_t(len(data)), arch, None, b"-O3"))
        else:
            codes.append(lib.nvFatbinAddCubin(handle, data, ctypes.c_size_t(len(data)), arch, None))
    size = ctypes.c_size_t()
    codes.append(lib.nvFatbinSize(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    codes.append(lib.nvFatbinGet(handle, buffer))
    if any(codes):
        raise SystemExit(f"nvFatbin errors {codes}")
    return buffer.raw


def shared_library(data: bytes, output: Path, compiler: str) -> None:
    """A linked library with one fatbin and one wrapper."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.fatbin"
        path.write_bytes(data)
        extra = ["-Wl,--no-insert-timestamp"] if "mingw" in compiler else ["-fPIC", "-Wl,--build-id=none"]
        command = [compiler, "-shared", "-Os", "-s", f'-DFATBIN_FILE="{path}"', "-nostdlib" if "mingw" not in compiler else "-Wall", *extra]
        subprocess.run([*command, "-o", str(output), str(HERE / "src/host.c")], check=True)


def wheel(library_bytes: bytes, output: Path) -> None:
    """A wheel with one library, deflated, and a RECORD."""
    info = "kernels-1.0.dist-info"
    members = {
        "kernels/__init__.py": b'"""Sample package."""\n',
        "kernels/libkernels.so": library_bytes,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: kernels\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: fatpatch samples\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n",
    }
    members[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*members, f"{info}/RECORD"]).encode()
    with zipfile.ZipFile(output, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, STAMP), data, zipfile.ZIP_DEFLATED, 9)


def gguf() -> bytes:
    """A tiny valid model: two Q8_0 matrices, one F32 vector."""

    def text(value: str) -> bytes:
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    keys = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.name") + struct.pack("<I", 8) + text("demo"),
        text("general.file_type") + struct.pack("<II", 4, 7),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("b") + text("c"),
    ]
    tensors = [("blk.0.attn_q.weight", (64, 64), 8, 0), ("blk.0.attn_norm.weight", (64,), 0, 4352), ("output.weight", (64, 64), 8, 4608)]
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    for name, shape, kind, offset in tensors:
        header += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    header += bytes(-len(header) % 32)
    return header + bytes(index * 37 & 0xFF for index in range(4608 + 4352))


def llamafile(ape: bytes, members: list[tuple[str, bytes, int]], output: Path) -> None:
    """Append stored members to an APE as zipalign does: old bytes untouched, zip64 fields, a new directory at the end."""
    end = ape.rindex(b"PK\x05\x06")
    count, size, offset = struct.unpack_from("<HII", ape, end + 10)
    directory = ape[offset : offset + size]
    data = bytearray(ape)
    for name, content, alignment in members:
        raw, crc = name.encode(), zlib.crc32(content)
        length = 30 + len(raw) + 20
        data += bytes(-(len(data) + length) % alignment)
        start = len(data)
        common = struct.pack("<HHHHHIIIHH", 45, 0x800, 0, 0, 0x5821, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(raw), 20)
        data += b"PK\x03\x04" + common + raw + struct.pack("<HHQQ", 1, 16, len(content), len(content)) + content
        common = struct.pack("<HHHHHIIIHH", 45, 0x800, 0, 0, 0x5821, crc, 0xFFFFFFFF, 0xFFFFFFFF, len(raw), 28)
        directory += b"PK\x01\x02" + struct.pack("<H", 45) + common + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, 0xFFFFFFFF) + raw
        directory += struct.pack("<HHQQQ", 1, 24, len(content), len(content), start)
        count += 1
    start = len(data)
    data += directory
    end64 = len(data)
    data += b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(directory), start)
    data += b"PK\x06\x07" + struct.pack("<IQI", 0, end64, 1)
    data += b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), 0xFFFFFFFF, 0)
    output.write_bytes(data)
    output.chmod(0o755)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ape", required=True, type=Path)
    ape = parser.parse_args().ape.read_bytes()
    compiler = Compiler()
    demo, kernels = HERE / "src/demo.cu", HERE / "src/kernels.cu"
    stubbed = fatbin([(target, compiler.compile(demo, target)) for target in DEMO_TARGETS], "-64")
    donor = fatbin([(target, compiler.compile(demo, target)) for target in DONOR_TARGETS], "-64")
    images = [(target, compiler.compile(kernels, target)) for target in (*ALL_TARGETS, *PTX_TARGETS)]
    by_target = dict(images)
    everything = fatbin(images, "-64", "-compress=true", "-compress-all")
    (HERE / "kernels.fatbin").write_bytes(everything)
    newer = library("cu13", "libnvfatbin.so.13")
    few = [pair for pair in images if pair[0] in ("sm_75", "sm_90a", "sm_120", "compute_90")]
    (HERE / "concatenated.fatbin").write_bytes(fatbin(few, "-64", "-compress=true", "-concat", lib=newer))
    (HERE / "kernels.sm_61.cubin").write_bytes(by_target["sm_61"])
    (HERE / "kernels.sm_90a.cubin").write_bytes(by_target["sm_90a"])
    (HERE / "kernels.sm_100f.cubin").write_bytes(by_target["sm_100f"])
    (HERE / "kernels.compute_52.ptx").write_bytes(by_target["compute_52"].rstrip(b"\0"))
    for name, data in (("demo", stubbed), ("donor", donor)):
        shared_library(data, HERE / f"{name}.so", "gcc")
        shared_library(data, HERE / f"{name}.dll", "x86_64-w64-mingw32-gcc")
    shared_library(everything, HERE / "libkernels.so", "gcc")
    wheel((HERE / "libkernels.so").read_bytes(), HERE / "kernels-1.0-py3-none-linux_x86_64.whl")
    members = [
        ("ggml-cuda.dll", (HERE / "demo.dll").read_bytes(), ALIGNMENT),
        ("ggml-cuda.so", (HERE / "demo.so").read_bytes(), ALIGNMENT),
        ("demo.Q8_0.gguf", gguf(), ALIGNMENT),
        (".args", b"-m\ndemo.Q8_0.gguf\n...\n", 1),
    ]
    llamafile(ape, members, HERE / "demo.llamafile")
    (HERE / "demo.dll").unlink()
    (HERE / "demo.so").unlink()
    write_manifest()


OWN = "own source in samples/src"
ORIGINS = {
    "demo.llamafile": (f"{OWN}; the executable is cosmo_ent/data/pledge of the PyPI package cosmo-ent 1.4.4", "MIT; pledge: ISC"),
}


def write_manifest() -> None:
    """sha256, source, licence and command of every sample."""
    lines = ["# Written by samples/build.py", ""]
    for path in sorted(HERE.iterdir()):
        if path.is_dir() or path.suffix in {".py", ".toml", ".md"} or "hipdemo" in path.name:
            continue
        source, licence = ORIGINS.get(path.name, (OWN, "MIT"))
        lines += [
            f'["{path.name}"]',
            f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
            f"size = {path.stat().st_size}",
            f'source = "{source}"',
            f'licence = "{licence}"',
            'command = "python samples/build.py --ape pledge"',
            'tools = "NVRTC 12.9.86, nvFatbin 12.9.82 and 13.5.37, gcc 12.2, x86_64-w64-mingw32-gcc 12"',
            "",
        ]
    manifest = HERE / "MANIFEST.toml"
    _, mark, others = manifest.read_text(encoding="utf-8").partition("# Written by samples/build_hip.py\n")
    manifest.write_text("\n".join(lines) + (f"\n{mark}{others}" if mark else ""), encoding="utf-8")


if __name__ == "__main__":
    main()
