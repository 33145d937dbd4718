"""Bytes of a fatbin from the entries of doctor_libs: compile the images, damage or edit them, wrap them.

Compilers: nvcc, ptxas and fatbinary 13.0 (PATH or NVCC), and NVRTC and ptxas 12.9 and nvFatbin 13.5 from the pip packages.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lz4.block
import lz4.frame
import zstandard
from builders import fatbin
from doctor_libs import CONCAT, ELF, INDEX, LTO, OLD_INDEX, PTX, RELOC_PTX, Entry, Module

SOURCES = Path(__file__).resolve().parent / "src"
PLACEHOLDER = "123456789"
PACK: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes, int], bytes], int]] = {
    "zlib": (zlib.compress, lambda blob, size: zlib.decompress(blob), 0x1000),
    "lz4": (lambda data: lz4.block.compress(data, store_size=False), lambda blob, size: lz4.block.decompress(blob, size), 0x2000),
    "lz4-frame": (lz4.frame.compress, lambda blob, size: lz4.frame.decompress(blob), 0x4000),
    "zstd": (zstandard.compress, lambda blob, size: zstandard.decompress(blob), 0x8000),
}


def run(*command: str | Path) -> None:
    """Run a compiler; its words if it fails."""
    done = subprocess.run([str(word) for word in command], cwd=SOURCES, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def packaged(pattern: str) -> Path:
    """A file of one of NVIDIA's pip packages."""
    for folder in sys.path:
        for path in sorted((Path(folder) / "nvidia").glob(pattern)):
            return path
    raise SystemExit(f"{pattern} is missing: install the pip packages named in tests/gpu/doctor_build.py")


@functools.cache
def toolkit() -> Path:
    """The bin folder of CUDA 13.0."""
    found = os.environ.get("NVCC") or shutil.which("nvcc")
    if not found:
        raise SystemExit("nvcc is missing: put it on PATH or name it in the variable NVCC")
    words = subprocess.run([found, "--dryrun", "-c", "a.cu"], cwd=SOURCES, capture_output=True, text=True, check=False).stderr
    return Path(re.search(r"^#\$ _HERE_=(.+)$", words, re.MULTILINE)[1])  # type: ignore[index]


def tool13(name: str) -> str:
    """A program of CUDA 13.0."""
    return str(toolkit() / name)


@functools.cache
def nvrtc() -> ctypes.CDLL:
    """NVRTC 12.9."""
    return ctypes.CDLL(str(packaged("cuda_nvrtc/lib/libnvrtc.so.12")))


def nvrtc_text(source: str, options: list[str]) -> str:
    """PTX of a source by NVRTC."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    text = (SOURCES / source).read_bytes()
    words = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    code = library.nvrtcCreateProgram(ctypes.byref(program), text, source.encode(), 0, None, None)
    code = code or library.nvrtcCompileProgram(program, len(options), words)
    if code:
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
        raise SystemExit(f"NVRTC {source} {options}: {log.value.decode()}")
    library.nvrtcGetPTXSize(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    library.nvrtcGetPTX(program, buffer)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return buffer.value.decode()


@functools.cache
def ptx_text(tool: str, target: str, source: str, module: str, defines: tuple[str, ...], rdc: bool) -> str:
    """PTX with the placeholder for the mark."""
    words = ["-DIMAGE", f"-DMOD={module}", *(f"-D{define}" for define in defines)]
    if tool == "12":
        return nvrtc_text(f"doctor_{source}.cu", [*words, f"-I{SOURCES}", f"--gpu-architecture=compute_{target}", *["-rdc=true"] * rdc])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ptx"
        run(tool13("nvcc"), "-ptx", *words, f"-arch=compute_{target}", *["-rdc=true"] * rdc, f"doctor_{source}.cu", "-o", path)
        return path.read_text()


def cubin(tool: str, target: str, text: str, rdc: bool) -> bytes:
    """Assemble."""
    ptxas = tool13("ptxas") if tool == "13" else packaged("cuda_nvcc/bin/ptxas")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ptx"
        path.write_text(text)
        run(ptxas, f"-arch=sm_{target}", *["-c"] * rdc, path, "-o", path.with_suffix(".cubin"))
        return path.with_suffix(".cubin").read_bytes()


def edit(text: str, entry: Entry) -> bytes:
    """Apply the edits of a PTX text."""
    if entry.version:
        text = re.sub(r"\.version \d+\.\d+", f".version {entry.version}", text, count=1)
    for name in entry.edits:
        if name.startswith("target "):
            text = re.sub(r"\.target [^\n]*", f".{name}", text, count=1)
        elif name == "crlf":
            text = text.replace("\n", "\r\n")
        elif name == "no address size":
            text = text.replace(".address_size 64", "")
        elif name == "address size 32":
            text = text.replace(".address_size 64", ".address_size 32")
        elif name == "damage" and entry.codec == "raw":
            text = text.replace("{", "{\n\tthis is not an instruction;\n", 1)
    data = text.encode() + b"\0"
    if "text after the end" in entry.edits:
        data += b"words that nobody reads\0"
    return data


def image(entry: Entry, source: str, module: str, mark: int) -> bytes:
    """The uncompressed image of an entry."""
    if not entry.target:
        return entry.payload
    rdc = "rdc" in entry.edits
    text = ptx_text(entry.tool, entry.target, source, module, entry.defines, rdc)
    if PLACEHOLDER not in text and "WITHOUT_SAME" not in entry.defines and source != "stub":
        raise SystemExit(f"no placeholder in {source} {entry}")
    text = text.replace(PLACEHOLDER, str(mark))
    if entry.sass:
        return cubin(entry.tool, entry.target, text, rdc)
    return edit(text, entry)


def damaged(blob: bytes, codec: str, size: int) -> bytes:
    """The compressed bytes changed so that they cannot be unpacked."""
    for start in (len(blob) // 2, len(blob) // 4, 8):
        for fill in (0xFF, 0x00, 0xA5):
            bad = blob[:start] + bytes([fill]) * 24 + blob[start + 24 :]
            try:
                PACK[codec][1](bad[: len(blob)], size)
            except Exception:  # every decoder has its own
                return bad[: len(blob)]
    raise SystemExit(f"cannot damage {codec}")


def compressed(entry: Entry, data: bytes) -> tuple[bytes, dict[str, int]]:
    """Stored bytes and header fields of a compressed image."""
    pack, _, bit = PACK[entry.codec]
    blob = pack(data)
    if "zstd two frames" in entry.edits:
        blob = pack(data[:1000]) + pack(data[1000:])
    if "no padding" in entry.edits:
        blob = next(found for n in range(400) if not len(found := pack(data[:-1] + b"//" + b"xyz"[: n % 3] * n + b"\n\0")) % 8)
        data += bytes(len(zlib.decompress(blob)) - len(data))
    if "zstd garbage" in entry.edits:
        blob += b"\xab" * 32
    if "damage" in entry.edits:
        blob = damaged(blob, entry.codec, len(data))
    size = len(data) + sum(int(name[6:]) for name in entry.edits if name.startswith("usize+"))
    stored = blob
    if entry.codec == "zlib" and not len(blob) % 8 and "no padding" not in entry.edits:
        stored += bytes(8)  # the driver wants a byte of padding after zlib
    return stored, {"compressed": len(blob), "uncompressed": size, "flags": entry.bits | bit}


def encode(entry: Entry, data: bytes) -> bytes:
    """One entry: header, extension, stored bytes."""
    fields: dict[str, int] = {"flags": entry.bits}
    if entry.codec != "raw":
        data, fields = compressed(entry, data)
    elif "damage" in entry.edits and entry.sass:
        data = bytes(64) + data[64:]
    if "sizes of nothing" in entry.edits:
        fields |= {"compressed": 77, "uncompressed": 99}
    major, minor = (1, 8 if entry.tool == "13" else 7)
    if entry.kind in (PTX, RELOC_PTX):
        major, minor = map(int, (entry.version or ("9.0" if entry.tool == "13" else "8.8")).split("."))
    with_options = entry.kind in (PTX, LTO, OLD_INDEX, INDEX, RELOC_PTX) and "no options" not in entry.edits
    return fatbin.entry(
        data,
        kind=entry.kind,
        arch=entry.arch,
        major=major,
        minor=minor,
        identifier=b"doctor.cu" if "identifier" in entry.edits else b"",
        options=entry.options if with_options else None,
        **fields,  # type: ignore[arg-type]
    )


def lto_entry(entry: Entry, source: str, module: str) -> bytes:
    """An LTO-IR entry as nvcc writes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.fatbin"
        code = f"arch=compute_{entry.target},code=lto_{entry.target}"
        run(tool13("nvcc"), "-fatbin", "-DIMAGE", f"-DMOD={module}", "-gencode", code, f"doctor_{source}.cu", "-o", path)
        return path.read_bytes()[16:]


def nvfatbin_concat(entry: Entry, images: list[bytes]) -> bytes:
    """The concatenated entries that nvFatbin 13.5 makes."""
    library = ctypes.CDLL(str(packaged("cu13/lib/libnvfatbin.so.13")))
    handle, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = (ctypes.c_char_p * 3)(b"-64", b"-concat", b"-compress-all")
    codes = [library.nvFatbinCreate(ctypes.byref(handle), options, ctypes.c_size_t(3))]
    for inner, data in zip(entry.inner, images, strict=True):
        target = inner.target.encode()
        if inner.kind == ELF:
            codes.append(library.nvFatbinAddCubin(handle, data, ctypes.c_size_t(len(data)), target, b""))
        else:
            codes.append(library.nvFatbinAddPTX(handle, data, ctypes.c_size_t(len(data)), target, b"", b""))
    codes.append(library.nvFatbinSize(handle, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    codes.append(library.nvFatbinGet(handle, buffer))
    library.nvFatbinDestroy(ctypes.byref(handle))
    if any(codes):
        raise SystemExit(f"nvFatbin: {codes}")
    return buffer.raw[16:]


def whole_entry(entry: Entry, source: str, module: str, mark: int) -> bytes:
    """The bytes of an entry."""
    if entry.kind == LTO and entry.target:
        return lto_entry(entry, source, module)
    if entry.kind == CONCAT and entry.inner:
        images = [image(inner, source, module, mark + 50 + number) for number, inner in enumerate(entry.inner)]
        return nvfatbin_concat(entry, images)
    return encode(entry, image(entry, source, module, mark))


def contain(change: str, blobs: list[bytes]) -> bytes:
    """The container around the entries, with the module's change to it."""
    whole = b"".join(blobs)
    if change == "size without the last":
        return fatbin.container(*blobs, size=len(whole) - len(blobs[-1]))
    if change == "garbage behind":
        return fatbin.container(*blobs) + b"\xab" * 64
    if change == "two containers":
        return fatbin.container(blobs[0]) + fatbin.container(*blobs[1:])
    if change == "version 2":
        return fatbin.container(*blobs, version=2)
    if change == "header 24":
        return fatbin.container(bytes(8), *blobs, header_size=24, size=len(whole))
    if change == "size cuts the last":
        return fatbin.container(*blobs, size=len(whole) - 16)
    if change == "zeros between":
        return fatbin.container(blobs[0], bytes(64), *blobs[1:])
    if change == "odd stored sizes":
        filler = fatbin.entry(b"\xcd" * 264, kind=0x7777, arch=0, payload_size=260)[:-4]
        return fatbin.container(blobs[0], filler, *blobs[2:])
    if change:
        raise SystemExit(f"unknown change {change!r}")
    return fatbin.container(*blobs)


def by_fatbinary(module: Module, name: str, first: int) -> bytes:
    """The module made by NVIDIA's own tool."""
    with tempfile.TemporaryDirectory() as folder:
        words = []
        for number, entry in enumerate(module.entries):
            path = Path(folder) / f"{number}"
            path.write_bytes(image(entry, module.source, name, first + number).rstrip(b"\0" if entry.kind == PTX else b""))
            words.append(f"--image3=kind={'elf' if entry.kind == ELF else 'ptx'},sm={entry.target},file={path}")
        run(tool13("fatbinary"), "-64", module.maker, *words, f"--create={folder}/all")
        return (Path(folder) / "all").read_bytes()


def fatbin_of(module: Module, name: str, first: int) -> bytes:
    """The fatbin of a module; the mark of entry i is first + i."""
    if module.maker != "own":
        return by_fatbinary(module, name, first)
    return contain(
        module.container, [whole_entry(entry, module.source, name, first + number) for number, entry in enumerate(module.entries)]
    )
