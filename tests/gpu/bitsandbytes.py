#!/usr/bin/env python3
"""Take the sm_90 code out of the real bitsandbytes library, graft it back, and compare what the library computes on a GPU.

Also: take out all but what an H100 loads, and pack that otherwise; the library must compute the same.

usage: bitsandbytes.py cut LIBRARY OUTPUT               (a copy without sm_90 SASS and without PTX)
       bitsandbytes.py stubs LIBRARY OUTDIR             (stand-ins for the cuBLAS libraries it is linked to)
       bitsandbytes.py prepare LIBRARY BUILT OUTDIR     (all files for the GPU machine, also packed as bitsandbytes.tar.xz; BUILT: a
                                                         folder with the CUDA runtime that the library needs, such as that of build.py)
       bitsandbytes.py run OUTDIR|bitsandbytes.tar.xz   (on the GPU machine, Python 3 alone: a table, also in $OUT/bitsandbytes.md)

LIBRARY is libbitsandbytes_cuda130.so (or _cuda118.so) of the wheel bitsandbytes 0.50.2.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from drive import FORCING, MODES, SECONDS, machine

SECTIONS = (b".nv_fatbin", b"__nv_relfatbin")
MAGIC = b"\x50\xed\x55\xba"
PTX, SASS, FILLER = 1, 2, 0x7777
ARCH = 90
STAGES = ("original", "cut", "grafted", "undone", "pruned", "packed")


# --- cutting: no code of fatpatch, so that a mistake in it cannot hide here


def sections(data: bytes) -> Iterator[tuple[int, int]]:
    """Offset and size of the fatbin sections of an ELF file."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    rows = [struct.unpack_from("<IIQQQQIIQQ", data, table + number * size) for number in range(count)]
    for row in rows:
        start = rows[names][4] + row[0]
        if data[start : data.index(b"\0", start)] in SECTIONS:
            yield row[4], row[5]


def entries(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(offset, header size, padded size) of every entry of every fatbin."""
    for start, length in sections(data):
        at = start
        while at < start + length:
            if data[at : at + 4] != MAGIC:
                assert data[at : at + 8] == bytes(8), hex(at)
                at += 8
                continue
            version, header, size = struct.unpack_from("<HHQ", data, at + 4)
            assert (version, header) == (1, 16), hex(at)
            at, end = at + 16, at + 16 + size
            while at < end:
                head, padded = struct.unpack_from("<IQ", data, at + 4)
                yield at, head, padded
                at += head + padded
            assert at == end, hex(at)


def cut(library: Path, output: Path) -> int:
    """Write a copy whose sm_90 SASS and PTX entries are fillers of the same length; how many there were."""
    data = bytearray(library.read_bytes())
    found = 0
    for at, head, padded in entries(library.read_bytes()):
        (kind,) = struct.unpack_from("<H", data, at)
        (arch,) = struct.unpack_from("<I", data, at + 0x1C)
        if kind == PTX or (kind == SASS and arch == ARCH):
            rest = head + padded - 64
            data[at : at + head + padded] = struct.pack("<HHIQ12xI32x", FILLER, 0x101, 64, rest, arch) + b"\xab" * rest
            found += 1
    output.write_bytes(data)
    output.chmod(library.stat().st_mode & 0o777)
    return found


def needed(library: Path, name: str) -> list[str]:
    """The libraries of a name that it is linked to: libcudart.so.13."""
    listing = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"\[({re.escape(name)}\w*\.so[.\d]*)\]", listing)


def stubs(library: Path, outdir: Path) -> list[str]:
    """Build libraries with the cuBLAS symbols the library needs; every function fails with a status. Names of the functions."""
    listing = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True).stdout
    made = []
    for soname in needed(library, "libcublas"):
        names = re.findall(rf"\bU (\w+)@{re.escape(soname)}$", listing, re.MULTILINE)
        with tempfile.TemporaryDirectory() as name:
            source, version = Path(name) / "stub.c", Path(name) / "stub.map"
            source.write_text("".join(f"int {name}(void) {{ return 15; }} /* CUBLAS_STATUS_NOT_SUPPORTED */\n" for name in names))
            version.write_text(f"{soname} {{ global: *; }};\n")
            options = [f"-Wl,-soname,{soname}", f"-Wl,--version-script,{version}"]
            subprocess.run(["gcc", "-shared", "-fPIC", "-Os", "-s", *options, source, "-o", outdir / soname], check=True)
        made += names
    return made


# --- running: one process per call, since the library ends its process at the first CUDA error


class Device:
    """Memory of the GPU, through the CUDA runtime the library uses."""

    def __init__(self, folder: Path, library: Path) -> None:
        (runtime,) = folder.glob("libcudart.so.*")
        self.runtime = ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
        for path in folder.glob("libcublas*"):
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(library))

    def check(self, code: int) -> None:
        if code:
            raise SystemExit(f"cuda error {code}")

    def put(self, data: bytes) -> ctypes.c_void_p:
        """A copy of the bytes on the GPU."""
        pointer = ctypes.c_void_p()
        self.check(self.runtime.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(len(data))))
        self.check(self.runtime.cudaMemcpy(pointer, data, ctypes.c_size_t(len(data)), 1))
        return pointer

    def get(self, pointer: ctypes.c_void_p, size: int) -> bytes:
        """The bytes at a place on the GPU; they must not be those that blank() put there."""
        buffer = ctypes.create_string_buffer(size)
        self.check(self.runtime.cudaMemcpy(buffer, pointer, ctypes.c_size_t(size), 2))
        if buffer.raw == BLANK * size:
            raise SystemExit("the output was not written")
        return buffer.raw

    def blank(self, size: int) -> ctypes.c_void_p:
        """Room for an output."""
        return self.put(BLANK * size)

    def call(self, name: str, *values: ctypes.c_void_p | ctypes.c_float | int | None) -> None:
        """Call a void function and wait for the GPU; int is a C int here, None a null pointer."""
        function = getattr(self.library, name)
        function.restype = None
        function(*(ctypes.c_int(value) if isinstance(value, int) else value for value in values))
        self.check(self.runtime.cudaGetLastError())
        self.check(self.runtime.cudaDeviceSynchronize())


BLANK = b"\xcd"
COUNT, BLOCK = 1 << 16, 64
ROWS, COLUMNS = 128, 512


def numbers(count: int, seed: int) -> list[float]:
    """Fixed numbers of -1 to 1, exact in half precision."""
    values = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) & 0x7FFFFFFF
        values.append(((seed >> 16) % 2001 - 1000) / 1024)
    return values


def halves(count: int, seed: int) -> bytes:
    return struct.pack(f"<{count}e", *numbers(count, seed))


def floats(count: int, seed: int) -> bytes:
    return struct.pack(f"<{count}f", *numbers(count, seed))


def packed(count: int, seed: int) -> bytes:
    """Fixed bytes: two 4-bit numbers in each."""
    return hashlib.shake_128(bytes([seed])).digest(count)


def quantize_nf4(device: Device) -> bytes:
    absmax, out = device.blank(COUNT // BLOCK * 4), device.blank(COUNT // 2)
    device.call("cquantize_blockwise_fp16_nf4", None, device.put(halves(COUNT, 1)), absmax, out, BLOCK, COUNT)
    return device.get(absmax, COUNT // BLOCK * 4) + device.get(out, COUNT // 2)


def quantize_8bit(device: Device) -> bytes:
    code = device.put(struct.pack("<256f", *((number - 127) / 128 for number in range(256))))
    absmax, out = device.blank(COUNT // 256 * 4), device.blank(COUNT)
    device.call("cquantize_blockwise_fp32", code, device.put(floats(COUNT, 2)), absmax, out, 256, COUNT)
    return device.get(absmax, COUNT // 256 * 4) + device.get(out, COUNT)


def dequantize_nf4(device: Device) -> bytes:
    out = device.blank(COUNT * 2)
    absmax = device.put(floats(COUNT // BLOCK, 3))
    device.call("cdequantize_blockwise_fp16_nf4", None, device.put(packed(COUNT // 2, 4)), absmax, out, BLOCK, COUNT, None)
    return device.get(out, COUNT * 2)


def int8_rows(device: Device) -> bytes:
    out, stats = device.blank(ROWS * COLUMNS), device.blank(ROWS * 4)
    data = device.put(halves(ROWS * COLUMNS, 5))
    device.call("cint8_vector_quant", data, out, stats, ctypes.c_float(0.0), ROWS, COLUMNS, None)
    return device.get(out, ROWS * COLUMNS) + device.get(stats, ROWS * 4)


def gemm(device: Device, rows: int) -> bytes:
    a, b = device.put(halves(rows * COLUMNS, 6)), device.put(packed(ROWS * COLUMNS // 2, 7))
    absmax, out = device.put(floats(ROWS * COLUMNS // BLOCK, 8)), device.blank(rows * ROWS * 2)
    device.call("cgemm_4bit_fp16", a, b, absmax, None, None, None, out, None, rows, ROWS, COLUMNS, BLOCK, 2, None)
    return device.get(out, rows * ROWS * 2)


def gemm_simt(device: Device) -> bytes:
    return gemm(device, 1)


def gemm_mma(device: Device) -> bytes:
    return gemm(device, 32)


def adam(device: Device) -> bytes:
    parts = [device.put(floats(COUNT, seed)) for seed in (9, 10, 11)]
    second = device.put(struct.pack(f"<{COUNT}f", *map(abs, numbers(COUNT, 12))))
    reals = [ctypes.c_float(value) for value in (0.0, 0.0, 0.9, 0.999, 0.0, 0.0, 1e-8, 0.01)]
    rates = ctypes.c_float(1e-3), ctypes.c_float(1.0)
    device.call("cadam32bit_grad_fp32", *parts, second, None, *reals, 3, *rates, 0, COUNT)
    return b"".join(device.get(part, COUNT * 4) for part in (*parts[1:], second))


# The first four are in one source file of the library, the two products in two others.
CALLS: dict[str, Callable[[Device], bytes]] = {
    call.__name__: call for call in (quantize_nf4, quantize_8bit, dequantize_nf4, int8_rows, adam, gemm_simt, gemm_mma)
}


def answer(folder: Path, library: Path, call: str, mode: str) -> str:
    """The MD5 of what a call computed, or how it failed."""
    environment = {key: value for key, value in os.environ.items() if key not in FORCING}
    environment |= {"CUDA_MODULE_LOADING": mode, "CUDA_CACHE_DISABLE": "1"}
    command = [sys.executable, __file__, "call", str(folder), str(library), call]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"hangs ({SECONDS} s)"
    if done.returncode == 0:
        return done.stdout.strip()
    text = " ".join(f"{done.stdout} {done.stderr}".split())
    return f"exit {done.returncode}: {re.sub(r' at line .*', '', text)[-120:]}".replace("|", "/")


def run(folder: Path) -> int:
    """Print every answer; 1 unless the cut library fails everywhere and the grafted one answers like the original."""
    lines = ["| call | loading | original | cut | grafted | undone | pruned | packed | verdict |", "|---|---|---|---|---|---|---|---|---|"]
    wrong = 0
    with ThreadPoolExecutor(4) as pool:
        answers = {
            (call, mode): [pool.submit(answer, folder, folder / f"{stage}.so", call, mode) for stage in STAGES]
            for call in CALLS
            for mode in MODES
        }
    for call in CALLS:
        for mode in MODES:
            found = [future.result() for future in answers[call, mode]]
            original, lacking, grafted, undone, pruned, packed = found
            good = re.fullmatch("[0-9a-f]{32}", original) and grafted == original and undone == lacking and lacking.startswith("exit ")
            good = good and pruned == packed == original
            wrong += not good
            lines.append(f"| {call} | {mode} | {' | '.join(found)} | {'ok' if good else 'DIFFERS'} |")
    text = f"{machine()}\n\n" + "\n".join(lines) + f"\n\n{wrong} of {len(lines) - 2} differ.\n"
    print(text, end="")
    if "OUT" in os.environ:
        (Path(os.environ["OUT"]) / "bitsandbytes.md").write_text(text)
    return 1 if wrong else 0


def prepare(library: Path, built: Path, outdir: Path) -> None:
    """Cut, graft, undo; prune, recompress; pack."""
    from prepare import digest, expect, fatpatch, pack

    outdir.mkdir(parents=True, exist_ok=True)
    shutil.copy2(library, outdir / "original.so")
    runtime, blas = needed(library, "libcudart"), needed(library, "libcublas")
    for name in runtime:
        shutil.copy2(built / name, outdir / name)
    print(f"{cut(library, outdir / 'cut.so')} entries cut; stubs of {', '.join(stubs(library, outdir))}")
    fatpatch("graft", "cut.so", "--from", "original.so", "--target", f"sm_{ARCH}", "-o", "grafted.so", folder=outdir)
    for suffix in ("", ".fatpatch-undo"):
        shutil.copy2(outdir / f"grafted.so{suffix}", outdir / f"undone.so{suffix}")
    fatpatch("undo", "undone.so", folder=outdir)
    expect(digest(outdir / "undone.so") == digest(outdir / "cut.so"), "undo did not restore the bytes")
    fatpatch("prune", "original.so", "--for", "H100", "--compact", "-o", "pruned.so", folder=outdir)
    fatpatch("recompress", "pruned.so", "--codec", "zstd", "--level", "19", "--compact", "-o", "packed.so", "--overwrite", folder=outdir)
    if not (outdir / "packed.so").exists():  # it is packed so already
        fatpatch("recompress", "pruned.so", "--codec", "lz4", "-o", "packed.so", folder=outdir)
    path = pack(outdir / "bitsandbytes.tar.xz", [*(f"{stage}.so" for stage in STAGES), *runtime, *blas])
    print(f"{path} is {path.stat().st_size:,d} bytes")


def main(words: list[str]) -> int:
    """Do what the first word says."""
    paths = [Path(word).resolve() for word in words[1:]]
    match words[:1], len(paths):
        case ["cut"], 2:
            print(f"{cut(*paths)} entries cut")
        case ["stubs"], 2:
            print(" ".join(stubs(*paths)))
        case ["prepare"], 3:
            prepare(*paths)
        case ["call"], 3:
            print(hashlib.md5(CALLS[words[3]](Device(*paths[:2]))).hexdigest())
        case ["run"], 1:
            with tempfile.TemporaryDirectory() as name:
                folder = paths[0]
                if folder.is_file():
                    folder = Path(name)
                    with tarfile.open(paths[0]) as archive:
                        archive.extractall(folder, filter="data")
                return run(folder)
        case _:
            raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
