"""Small host ELF files with fatbins in them, and a reader of their wrappers that owes nothing to fatpatch.

``entries_in_memory`` does what a loader does: it maps the PT_LOADs, relocates, and follows the wrappers through memory.
``entries_at_run_time`` lets the system's own loader do it.
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from builders.fatbin import container, entry

from fatpatch.commands import run as run_command

X86_64 = "gcc"
AARCH64 = "aarch64-linux-gnu-gcc"
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_PHDR = 1, 2, 4, 6
_SEGMENT = struct.Struct("<IIQQQQQQ")
_RELATIVE = {62: 8, 183: 1027}
_WRAPPER = struct.Struct("<IIQQ")
_WRAPPER_HEAD = struct.pack("<II", 0x466243B1, 1)
_BASE = 0x7E5500000000
_TIMEOUT = 60

_COMMON = r"""
#include <stdint.h>
#include <stdio.h>
#include <string.h>
struct wrapper { uint32_t magic, version; const unsigned char *fatbin; void *extra; };
static int print(const struct wrapper *at, const struct wrapper *end) {
    for (unsigned number = 0; at < end; at++, number++) {
        uint64_t left;
        if (at->magic != 0x466243b0u + 1 || memcmp(at->fatbin, "\x50\xed\x55\xba\1\0\x10\0", 8)) return 3;
        memcpy(&left, at->fatbin + 8, 8);
        for (const unsigned char *entry = at->fatbin + 16; left;) {
            uint16_t kind; uint32_t header, arch, sum = 0; uint64_t stored, flags;
            memcpy(&kind, entry, 2), memcpy(&header, entry + 4, 4), memcpy(&stored, entry + 8, 8);
            memcpy(&arch, entry + 28, 4), memcpy(&flags, entry + 40, 8);
            if (header < 64 || header > left || stored > left - header) return 4;
            for (uint64_t i = 0; i < stored; i++) sum += entry[header + i];
            printf("%u %u %u %llu %llu %u\n", number, kind, arch, (unsigned long long)flags, (unsigned long long)stored, sum);
            entry += header + stored, left -= header + stored;
        }
    }
    return 0;
}
"""

_LIBRARY = r"""
static unsigned char blank[BLANK];
static int table[256] = {1, 2, 3};
static __thread int local = 7;
static const char *volatile words[] = {"one", "two"};
static int started;
__attribute__((constructor)) static void start(void) { started = 5; }
__attribute__((visibility("default"))) int healthy(void) {
    unsigned sum = 0;
    for (unsigned long i = 0; i < sizeof blank; i += sizeof blank > 65536 ? 4096 : 1) sum |= ((volatile unsigned char *)blank)[i];
    for (unsigned i = 0; i < 4096; i++) sum |= ((volatile unsigned char *)blank)[sizeof blank - 1 - i];
    return sum == 0 && table[2] == 3 && table[255] == 0 && local++ == 7 && started == 5 && words[1][0] == 't' && words[0][2] == 'e';
}
"""

_PROGRAM = r"""
#include <stdlib.h>
extern const struct wrapper wrappers[] __attribute__((visibility("hidden"))), wrappers_end[] __attribute__((visibility("hidden")));
int main(void) {
    char *heap = malloc(3 << 20);
    if (!heap || !memset(heap, 1, 3 << 20) || !healthy()) return 5;
    return print(wrappers, wrappers_end);
}
"""

_LOADER = r"""
#include <dlfcn.h>
int main(int count, char **arguments) {
    void *library = count == 2 ? dlopen(arguments[1], RTLD_NOW) : 0;
    if (!library) return fprintf(stderr, "%s\n", dlerror()), 2;
    int (*healthy)(void) = (int (*)(void))dlsym(library, "healthy");
    const struct wrapper *at = dlsym(library, "wrappers"), *end = dlsym(library, "wrappers_end");
    if (!healthy || !at || !end || !healthy()) return 5;
    const int status = print(at, end);
    return dlclose(library) ? 6 : status;
}
"""

_NO_NOTES = "SECTIONS { /DISCARD/ : { *(.note .note.*) } } INSERT AFTER .text;\n"


class Entry(NamedTuple):
    """One entry of the fatbin that wrapper number ``wrapper`` leads to; ``byte_sum`` is over the stored bytes, 32 bits."""

    wrapper: int
    kind: int
    arch: int
    flags: int
    stored_size: int
    byte_sum: int


class Stored(NamedTuple):
    """An entry with its stored bytes, read by its own struct code."""

    kind: int
    arch: int
    flags: int
    data: bytes


class Host(NamedTuple):
    """A kind of file to build. ``program``: an executable, not a library; ``after`` changes the linked bytes."""

    name: str
    options: tuple[str, ...] = ()
    compiler: str = X86_64
    program: bool = False
    modules: int = 1
    blank: int = 4096
    flags: str = "aw"
    notes: bool = True
    sections: bool = True
    extra: str = ""
    home: str = ".nv_fatbin"
    after: Callable[[bytearray], None] | None = None

    @property
    def static(self) -> bool:
        return any(option.startswith("-static") for option in self.options)


class BuildError(Exception):
    """A tool is missing, or does not know an option."""


class Answer(NamedTuple):
    """What a command gave: exit status and both outputs."""

    code: int
    out: str
    err: str


def fatpatch(*arguments: object) -> Answer:
    """The command line in this process, its writes not awaited on the disk: both take longer than the work."""
    out, err = StringIO(), StringIO()
    command = ["fatpatch", *map(str, arguments)]
    with patch.object(sys, "argv", command), patch.object(os, "fsync"), redirect_stdout(out), redirect_stderr(err):
        code = run_command()
    return Answer(code, out.getvalue(), err.getvalue())


# Fatbins


def stored_entries(data: bytes, at: int = 0) -> list[Stored]:
    """The entries of the container at ``at``; ValueError unless they fill it exactly."""
    if data[at : at + 8] != b"\x50\xed\x55\xba\x01\0\x10\0":
        raise ValueError(f"no fatbin at {at:#x}")
    end = at + 16 + int.from_bytes(data[at + 8 : at + 16], "little")
    found, at = [], at + 16
    while at < end:
        kind, _, header_size, size = struct.unpack_from("<HHIQ", data, at)
        (arch,), (flags,) = struct.unpack_from("<I", data, at + 28), struct.unpack_from("<Q", data, at + 40)
        found.append(Stored(kind, arch, flags, data[at + header_size : at + header_size + size]))
        at += header_size + size
    if at != end or end > len(data):
        raise ValueError("the entries do not fill the fatbin")
    return found


def summed(number: int, stored: Sequence[Stored]) -> list[Entry]:
    """What a loader should print for the fatbin of wrapper ``number``."""
    return [Entry(number, item.kind, item.arch, item.flags, len(item.data), sum(item.data) & 0xFFFFFFFF) for item in stored]


def donated(cubin: bytes, arch: int, flags: int = 0x11) -> Stored:
    """The entry that a grafted cubin should become, uncompressed."""
    return Stored(2, arch, flags, cubin + bytes(-len(cubin) % 8))


@functools.cache
def demo_member(samples: Path, name: str) -> bytes:
    """A library out of the sample llamafile."""
    return zipfile.ZipFile(BytesIO((samples / "demo.llamafile").read_bytes())).read(name)


@functools.cache
def cubin(samples: Path, arch: int) -> bytes:
    """The cubin of the demo kernels for ``arch``: 60, 70 and 75 of the llamafile, 61 of the donor."""
    data = (samples / "donor.so").read_bytes() if arch == 61 else demo_member(samples, "ggml-cuda.so")
    (found,) = (item.data for item in stored_entries(data, data.index(b"\x50\xed\x55\xba\x01\0\x10\0")) if item.arch == arch)
    return found


@functools.cache
def fatbins(samples: Path) -> tuple[bytes, ...]:
    """Three distinct modules: the demo kernels for sm_75; the other kernels for sm_90a; the demo kernels again, under other names."""
    other = (samples / "kernels.sm_90a.cubin").read_bytes()
    renamed = cubin(samples, 70).replace(b"quantize_q8_1", b"quantize_q8_7").replace(b"rms_norm_f32", b"rms_norm_f64")
    return (
        container(entry(cubin(samples, 75), kind=2, arch=75, major=1, minor=7)),
        container(entry(other, kind=2, arch=90, flags=0x100011, major=1, minor=7)),
        container(entry(renamed, kind=2, arch=70, major=1, minor=7)),
    )


# Building


def _call(*command: str | Path) -> None:
    if shutil.which(str(command[0])) is None:
        raise BuildError(f"needs {command[0]}")
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise BuildError(f"{command[0]}: {done.stderr[-2000:]}")


def _assembly(host: Host, folder: Path, modules: Sequence[bytes]) -> str:
    at = "@" if host.compiler == X86_64 else "%"
    lines = [f'.section {host.home},"a",{at}progbits']
    for number, data in enumerate(modules):
        (folder / f"{number}.fatbin").write_bytes(data)
        lines += [".balign 16", f"fatbin{number}:", f'.incbin "{folder / f"{number}.fatbin"}"']
    lines += [f'.section .nvFatBinSegment,"{host.flags}",{at}progbits', ".balign 8", ".globl wrappers, wrappers_end", "wrappers:"]
    lines += [line for number in range(len(modules)) for line in (".long 0x466243b1, 1", f".quad fatbin{number}, 0")]
    lines += [*([] if "wrappers_end:" in host.extra else ["wrappers_end:"]), host.extra, f'.section .note.GNU-stack,"",{at}progbits', ""]
    return "\n".join(lines)


def build(host: Host, folder: Path, modules: Sequence[bytes]) -> Path:
    """Link a host with the given fatbins into ``folder``; BuildError where a tool is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    code, script, output = folder / "host.c", folder / "host.ld", folder / ("host" if host.program else "host.so")
    assembly = folder / "wrappers.s"
    assembly.write_text(_assembly(host, folder, modules[: host.modules]))
    code.write_text((_COMMON if host.program else "") + _LIBRARY + (_PROGRAM if host.program else ""))
    command = [host.compiler, "-O1", f"-DBLANK={host.blank}", *([] if host.program else ["-shared", "-fPIC"]), *host.options]
    if not host.notes:
        script.write_text(_NO_NOTES)
        command += ["-Wl,--build-id=none", f"-Wl,-T,{script}"]
    _call(*command, "-o", output, code, assembly)
    data = bytearray(output.read_bytes())
    if not host.sections:
        data[0x28:0x30], data[0x3C:0x40] = bytes(8), bytes(4)
    if host.after is not None:
        host.after(data)
    output.write_bytes(data)
    return output


def build_loader(folder: Path) -> Path:
    """A program that loads a library and prints what its wrappers lead to."""
    code, output = folder / "loader.c", folder / "loader"
    code.write_text(_COMMON + _LOADER)
    _call(X86_64, "-O1", "-o", output, code, "-ldl")
    return output


# Reading


class Segment(NamedTuple):
    """A program header."""

    type: int
    flags: int
    offset: int
    address: int
    physical: int
    file_size: int
    memory_size: int
    alignment: int


def segments_of(data: bytes) -> list[Segment]:
    """The program headers."""
    (start,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    assert size == _SEGMENT.size
    return [Segment(*_SEGMENT.unpack_from(data, start + index * size)) for index in range(count)]


class _Memory:
    """A file as a loader maps it: page by page from PT_LOADs that must ascend, zeros behind their file bytes."""

    def __init__(self, data: bytes) -> None:
        self.segments, self.pages = segments_of(data), {}
        self.base = _BASE if data[16] == 3 else 0
        end = 0
        for segment in self.segments:
            if segment.type != PT_LOAD:
                continue
            assert segment.address >= end, "a loader wants ascending segments that do not overlap"
            assert (segment.offset - segment.address) % max(segment.alignment, 4096) == 0, "mmap refuses the offset"
            assert segment.offset + segment.file_size <= len(data), "SIGBUS: behind the end of the file"
            end = segment.address + segment.memory_size
            first, last = segment.address & ~4095, segment.address + segment.file_size
            delta = segment.offset - segment.address
            for page in range(first, last, 4096):
                content = bytearray(data[page + delta : page + delta + 4096].ljust(4096, b"\0"))
                if page + 4096 > last and segment.memory_size > segment.file_size:
                    content[last - page :] = bytes(page + 4096 - last)
                self.pages[page] = content

    def read(self, address: int, size: int) -> bytes:
        """Bytes at an address of the file (unrelocated)."""
        parts = []
        while size:
            page, at = address & ~4095, address & 4095
            take = min(size, 4096 - at)
            parts.append(bytes(self.pages[page][at : at + take]))
            address, size = address + take, size - take
        return b"".join(parts)

    def put(self, address: int, value: int) -> None:
        """Store a 64-bit word."""
        for index, byte in enumerate(value.to_bytes(8, "little")):
            self.pages[address + index & ~4095][address + index & 4095] = byte

    def word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def relocate(self, machine: int) -> None:
        """Apply the RELATIVE relocations of DT_RELA and those of DT_RELR, in that order."""
        table = next((segment for segment in self.segments if segment.type == PT_DYNAMIC), None)
        if table is None:
            return
        rows = dict(struct.iter_unpack("<QQ", self.read(table.address, table.file_size & ~15)))
        for place, info, addend in struct.iter_unpack("<QQq", self.read(rows.get(7, 0), rows.get(8, 0))):
            if info == _RELATIVE[machine]:
                self.put(place, self.base + addend)
        place = 0
        for (word,) in struct.iter_unpack("<Q", self.read(rows.get(36, 0), rows.get(35, 0))):
            if word & 1:
                for bit in range(63):
                    if word >> bit + 1 & 1:
                        self.put(place + 8 * bit, self.base + self.word(place + 8 * bit))
                place += 63 * 8
            else:
                self.put(word, self.base + self.word(word))
                place = word + 8


def fatbins_in_memory(data: bytes) -> list[list[Stored]]:
    """What each wrapper leads to once the file is loaded, in the order of the wrappers."""
    memory = _Memory(data)
    memory.relocate(int.from_bytes(data[18:20], "little"))
    found = []
    for segment in memory.segments:
        content = memory.read(segment.address, segment.file_size) if segment.type == PT_LOAD else b""
        at = -8
        while (at := content.find(_WRAPPER_HEAD, at + 8)) >= 0:
            _, _, pointer, extra = _WRAPPER.unpack_from(content, at)
            assert (segment.address + at) % 8 == extra == 0
            start = pointer - memory.base
            found.append(stored_entries(memory.read(start, 16 + memory.word(start + 8))))
    return found


def entries_in_memory(path: Path) -> list[Entry]:
    """The same as a list of entries."""
    return [item for number, stored in enumerate(fatbins_in_memory(path.read_bytes())) for item in summed(number, stored)]


def entries_at_run_time(host: Host, path: Path, loader: Path) -> list[Entry]:
    """What the loaded file finds through its own wrappers; ValueError when it fails, with its exit status."""
    path.chmod(0o755)
    command = [path] if host.program else [loader, path]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=_TIMEOUT, check=False)
    if done.returncode:
        raise ValueError(f"status {done.returncode}: {done.stderr}")
    return [Entry(*map(int, line.split())) for line in done.stdout.splitlines()]
