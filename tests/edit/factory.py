"""Linked hosts of every kind: linker, kind of file, flags, and what was done to it after linking; each checks itself when it runs.

A host holds three fatbins. Run, it checks its own data, functions, thread-local storage, constructors, an ifunc, an exception and its
dynamic symbols, and prints the architectures of the images that its wrappers lead to.
"""

from __future__ import annotations

import functools
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from builders.fatbin import container, entry
from conftest import SAMPLES
from edit.elf_builder import BuildError, cubin

_CODE = r"""
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <stdexcept>
#include <string>
#include <vector>
struct wrapper { uint32_t magic, version; const unsigned char *fatbin; void *extra; };
extern "C" { extern const wrapper wrappers[] __attribute__((visibility("hidden"))), wrappers_end[] __attribute__((visibility("hidden"))); }
static int table[300] = {1, 2, 3};
static unsigned char blank[70000];
static thread_local int local = 7;
static thread_local std::string *late;
static const char *const words[] = {"one", "two", "three"};
static const std::vector<std::string> made = {"alpha", "beta"};
static int started, ended;
struct Guard { ~Guard() { ended++; } };
__attribute__((constructor)) static void start() { started = 5; }
extern "C" int plain() { return 41; }
extern "C" int better() { return 42; }
#ifdef IFUNC
extern "C" int (*resolve(void))(void) { return better; }
extern "C" int chosen() __attribute__((ifunc("resolve")));
#else
extern "C" int chosen() { return better(); }
#endif
extern "C" __attribute__((visibility("default"), used)) int exported_data = 1234;
extern "C" __attribute__((visibility("default"), noinline)) int thrower(int n) {
    Guard guard;
    if (n > 2) throw std::runtime_error(words[n % 3]);
    return n;
}
extern "C" __attribute__((visibility("default"))) int healthy(void) {
    unsigned sum = 0;
    for (auto each : blank) sum |= ((volatile unsigned char &)each);
    std::string caught;
    try { thrower(5); } catch (const std::exception &error) { caught = error.what(); }
    if (!late) late = new std::string("tls");
    volatile int switched = table[1];
    switch (switched) { case 0: return 30; case 1: return 31; case 2: break; case 3: return 33; case 4: return 34; case 5: return 35; }
    if (sum || table[2] != 3 || table[299]) return 10;
    if (local++ != 7 || *late != "tls") return 11;
    if (started != 5 || made.size() != 2 || made[1] != "beta") return 12;
    if (caught != "three" || ended != 1) return 13;
    if (chosen() != 42 || plain() != 41 || exported_data != 1234) return 14;
    local = 7, ended = 0;
    return 0;
}
extern "C" __attribute__((visibility("default"))) int print(void) {
    for (const wrapper *at = wrappers; at < wrappers_end; at++) {
        uint64_t left;
        if (at->magic != 0x466243b0u + 1 || memcmp(at->fatbin, "\x50\xed\x55\xba\1\0\x10\0", 8)) return 3;
        memcpy(&left, at->fatbin + 8, 8);
        for (const unsigned char *entry = at->fatbin + 16; left;) {
            uint32_t header, arch; uint64_t stored;
            memcpy(&header, entry + 4, 4), memcpy(&stored, entry + 8, 8), memcpy(&arch, entry + 28, 4);
            if (header < 64 || header > left || stored > left - header) return 4;
            printf(" %u", arch);
            entry += header + stored, left -= header + stored;
        }
        printf(";");
    }
    puts("");
    return 0;
}
#ifdef PROGRAM
int main() { const int status = healthy(); return status ? status : print(); }
#endif
"""

_LOADER = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **arguments) {
    for (int round = 0; round < 2; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW);
        if (!library) return fprintf(stderr, "%s\n", dlerror()), 2;
        int (*healthy)(void) = (int (*)(void))dlsym(library, "healthy"), (*print)(void) = (int (*)(void))dlsym(library, "print");
        int *data = dlsym(library, "exported_data");
        if (!healthy || !print || !data || *data != 1234) return 5;
        const int status = healthy();
        if (status) return status;
        if (round == 1) return print();
        dlclose(library);
    }
}
"""

LINKERS = {"ld": "-fuse-ld=bfd", "gold": "-fuse-ld=gold", "lld": "-fuse-ld=lld", "mold": "-fuse-ld=mold"}
KINDS = {
    "shared": ("-shared", "-fPIC"),
    "pie": ("-pie", "-fPIE"),
    "static-pie": ("-static-pie", "-fPIE"),
    "fixed": ("-no-pie", "-fno-pie"),
    "static": ("-static",),
}
FLAGS = {
    "plain": (),
    "relr": ("-Wl,-z,pack-relative-relocs",),
    "no-build-id": ("-Wl,--build-id=none",),
    "noseparate-code": ("-Wl,-z,noseparate-code",),
    "now-relro": ("-Wl,-z,now", "-Wl,-z,relro"),
    "norelro": ("-Wl,-z,norelro",),
    "huge-pages": ("-Wl,-z,max-page-size=0x200000",),
    "gc-icf": ("-ffunction-sections", "-Wl,--gc-sections"),
    "debug": ("-g",),
    "O2": ("-O2",),
}
AFTER = {
    "": (),
    "strip": ("strip",),
    "strip-g": ("strip", "-g"),
    "objcopy": ("objcopy", "--add-section", ".note.more=/etc/hostname"),
    "patchelf": ("patchelf", "--set-rpath", "$ORIGIN/a/much/longer/path/than/before"),
}


class Host(NamedTuple):
    """One kind of host, by keys of the tables above."""

    linker: str
    kind: str
    flags: str
    after: str

    @property
    def name(self) -> str:
        return "-".join(filter(None, self))


def all_hosts() -> list[Host]:
    """Every linker and kind with every flag, and with every tool; static-pie and static by those linkers alone that can."""
    rows = [Host(linker, kind, flags, "") for linker, kind, flags in itertools.product(LINKERS, KINDS, FLAGS)]
    rows += [Host(linker, kind, "plain", after) for linker, kind, after in itertools.product(LINKERS, KINDS, AFTER) if after]
    rows += [Host("ld", kind, flags, "strip") for kind, flags in itertools.product(KINDS, FLAGS) if flags != "plain"]
    return rows


@functools.cache
def fatbins() -> tuple[bytes, ...]:
    """Three modules of sm_61, sm_70 and sm_75 each, with kernels of other names."""

    def of(old: bytes, new: bytes) -> bytes:
        images = [(arch, cubin(SAMPLES, arch).replace(old, new)) for arch in (61, 70, 75)]
        return container(*(entry(data, kind=2, arch=arch, major=1, minor=7) for arch, data in images))

    return of(b"", b""), of(b"rms_norm_f32", b"rms_norm_f64"), of(b"quantize_q8_1", b"quantize_q8_7")


def given(folder: Path) -> Path:
    """A cubin of the second module for a target that it lacks."""
    path = folder / "given.cubin"
    path.write_bytes(cubin(SAMPLES, 60).replace(b"rms_norm_f32", b"rms_norm_f64"))
    return path


class Factory:
    """Compiles once a flag, links once a host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for number, data in enumerate(fatbins()):
            (folder / f"{number}.fatbin").write_bytes(data)
        lines = ['.section .nv_fatbin,"a",@progbits']
        for number in range(len(fatbins())):
            lines += [".balign 16", f"fatbin{number}:", f'.incbin "{folder / f"{number}.fatbin"}"']
        lines += ['.section .nvFatBinSegment,"aw",@progbits', ".balign 8", ".globl wrappers, wrappers_end", "wrappers:"]
        lines += [line for number in range(len(fatbins())) for line in (".long 0x466243b1, 1", f".quad fatbin{number}, 0")]
        (folder / "wrappers.s").write_text("\n".join([*lines, "wrappers_end:", '.section .note.GNU-stack,"",@progbits', ""]))
        (folder / "host.cc").write_text(_CODE)
        (folder / "loader.c").write_text(_LOADER)
        self._call("gcc", "-o", folder / "loader", folder / "loader.c", "-ldl")

    def build(self, host: Host) -> Path:
        """The linked host; BuildError where a tool is missing or cannot do it."""
        output = self.folder / host.name
        options = [*KINDS[host.kind], *FLAGS[host.flags], LINKERS[host.linker]]
        program = host.kind != "shared"
        code = [f for f in FLAGS[host.flags] if not f.startswith("-Wl")]
        model = [option for option in KINDS[host.kind] if option.startswith("-f")]
        obj = self.folder / (
            "-".join(["host", *model, *code, *(["p"] if program else []), *(["i"] if host.linker in ("ld", "lld") else [])]) + ".o"
        )
        if not obj.is_file():
            extra = [*(["-DPROGRAM"] if program else []), *(["-DIFUNC"] if host.linker in ("ld", "lld") else [])]
            self._call("g++", "-c", "-O1", *extra, *model, *code, "-o", obj, self.folder / "host.cc")
        self._call("g++", *options, "-o", output, obj, self.folder / "wrappers.s", "-ldl")
        if host.after:
            self._call(*AFTER[host.after], output)
        return output

    def run(self, host: Host, path: Path) -> str:
        """What it prints; ValueError when it fails."""
        path.chmod(0o755)
        command = [self.folder / "loader", path] if host.kind == "shared" else [path]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise ValueError(f"status {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def _call(self, *command: object) -> None:
        if shutil.which(str(command[0])) is None:
            raise BuildError(f"needs {command[0]}")
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise BuildError(f"{command[0]}: {done.stderr[-1000:]}")
