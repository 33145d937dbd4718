from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hostcode.machine_code import CODE, DATA, dll, elf, lea

from fatpatch.base.source import Source
from fatpatch.hostcode.registration import Registration, registered
from fatpatch.scan.walk import walked

SOURCE = r"""
#include <stddef.h>
extern void **__cudaRegisterFatBinary(void *);
extern void __cudaRegisterFunction(void **, const char *, char *, const char *, int, void *, void *, void *, void *, int *);
extern void __cudaRegisterFatBinaryEnd(void **);
static const unsigned long long fatbin[2] __attribute__((section(".nv_fatbin"), aligned(8), used)) = {0x00100001ba55ed50ull, 0};
struct wrapper { int magic, version; const void *data; void *more; };
static struct wrapper one __attribute__((section(".nvFatBinSegment"), aligned(8), used)) = {0x466243b1, 1, fatbin, 0};
void stub_a(void) { __asm__ volatile("nop; nop"); }
void stub_b(void) { __asm__ volatile("nop; nop; nop"); }
#define REGISTER(stub, name) __cudaRegisterFunction(handle, (const char *)stub, (char *)name, name, -1, 0, 0, 0, 0, 0)
__attribute__((constructor)) static void registerAll(void) {
    void **handle = __cudaRegisterFatBinary(&one);
    REGISTER(stub_a, "_Z8kernel_aPf");
    REGISTER(stub_b, "_Z8kernel_bPf");
    __cudaRegisterFatBinaryEnd(handle);
}
const char *elsewhere(void) { return "_Z8kernel_cPf"; }
"""
RUNTIME = r"""
void **__cudaRegisterFatBinary(void *wrapper) { static void *handle; handle = wrapper; return &handle; }
void __cudaRegisterFatBinaryEnd(void **handle) { *handle = 0; }
int last;
void __cudaRegisterFunction(void **h, const char *a, char *b, const char *c, int d, void *e, void *f, void *g, void *i, int *j) { last = c[0]; }
int main(void) { return 0; }
"""
A, B, C = "_Z8kernel_aPf", "_Z8kernel_bPf", "_Z8kernel_cPf"


def read(data: bytes, *names: str) -> Registration:
    with walked(Source.of(data), "host") as node:
        return registered(node, frozenset(names))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("hosts")
    (folder / "host.c").write_text(SOURCE)
    (folder / "runtime.c").write_text(RUNTIME)
    return folder


def compiled(folder: Path, *options: str) -> bytes:
    subprocess.run(["gcc", "-o", "out", *options], cwd=folder, check=True, capture_output=True)
    return (folder / "out").read_bytes()


@pytest.mark.parametrize("options", [["-O2"], ["-O0"], ["-O2", "-fcf-protection=full"], ["-O2", "-fno-plt"], ["-O2", "-Wl,-z,now"]])
def test_imported_runtime(folder: Path, options: list[str]) -> None:
    data = compiled(folder, "-shared", "-fPIC", *options, "host.c")
    found = read(data, A, C)
    assert found.proven
    assert (found.kernels, found.unknown) == ({A, C}, {B})
    assert "2 calls of __cudaRegisterFunction, known by a dynamic symbol" in found.reason


def test_without_section_headers(folder: Path) -> None:
    data = bytearray(compiled(folder, "-shared", "-fPIC", "-O2", "host.c"))
    data[40:48], data[60:64] = bytes(8), bytes(4)
    found = read(bytes(data), A, "_Z7missingv")
    assert (found.proven, found.kernels, found.unknown) == (True, {A}, {B})


@pytest.mark.parametrize("pie", ["-pie", "-no-pie"])
def test_runtime_linked_in(folder: Path, pie: str) -> None:
    """With symbols it is proven; stripped, the names are at least known to be loaded."""
    code = "-fPIE" if pie == "-pie" else "-fno-pie"
    with_symbols = compiled(folder, pie, code, "-O2", "host.c", "runtime.c", "-fno-lto", "-fno-ipa-cp", "-fno-ipa-sra")
    found = read(with_symbols, A, C)
    assert (found.proven, found.kernels, found.unknown) == (True, {A, C}, {B})
    assert "linked in" in found.reason
    stripped = compiled(folder, pie, code, "-O2", "-s", "host.c", "runtime.c")
    found = read(stripped, A, B, C, "_Z7missingv")
    assert not found.proven
    assert (found.kernels, found.unknown) == ({A, B, C}, set())
    assert "only known to be loaded" in found.reason


def test_windows_import() -> None:
    """lea rcx/r8/r9 and ``call [slot]``: the name is what r9 holds."""
    base, data = 0x180001000, 0x180002000
    slot = data + 0x3F0
    code = lea(8, base, data) + lea(2, base + 7, base)
    code += lea(9, base + 14, data)
    code += b"\xff\x15" + struct.pack("<i", slot - (base + len(code)) - 6)
    code += lea(0, base + len(code), data + 16) + b"\x4c\x8b\xc8"  # lea rax, second; mov r9, rax
    code += b"\xff\x15" + struct.pack("<i", slot - (base + len(code)) - 6) + b"\xc3"
    made = dll(code, b"_Z5firstv".ljust(16, b"\0") + b"_Z6secondv\0", imported=b"__cudaRegisterFunction")
    found = read(made, "_Z5firstv")
    assert (found.proven, found.kernels, found.unknown) == (True, {"_Z5firstv"}, {"_Z6secondv"})
    assert "import table" in found.reason
    found = read(dll(code, b"_Z5firstv\0", imported=b"__cudaRegisterVar"), "_Z5firstv")
    assert (found.proven, found.kernels, found.unknown) == (False, {"_Z5firstv"}, set())


def test_a_name_that_is_only_there() -> None:
    """A string that no code loads, and one whose tail is loaded."""
    code = lea(1, CODE, DATA + 3) + b"\xc3"
    found = read(elf(code, b"xy\0_Z5innerv\0_Z5outerv\0"), "_Z5innerv", "_Z5outerv", "_Z5inner")
    assert found.kernels == {"_Z5innerv"}


def test_constants_of_a_fixed_executable_only() -> None:
    code = b"\xb9" + struct.pack("<I", DATA) + b"\xc3"
    assert read(elf(code, b"_Z1av\0", kind=2), "_Z1av").kernels == {"_Z1av"}
    assert read(elf(code, b"_Z1av\0", kind=3), "_Z1av").kernels == set()


@pytest.mark.parametrize(("data", "words"), [(elf(b"\xc3", b"x", machine=183), "not x86-64"), (b"GGUF", "not an ELF or PE")])
def test_unknown_host(data: bytes, words: str) -> None:
    found = read(data, A)
    assert (found.proven, found.kernels, found.unknown) == (False, set(), set())
    assert words in found.reason


def test_samples_register_nothing(samples: Path) -> None:
    """Their host code is a stub that only returns the wrapper."""
    found = read((samples / "donor.dll").read_bytes(), "_Z13quantize_q8_1PKfPii")
    assert (found.proven, found.kernels) == (False, set())
    assert "loads the address of no kernel's name" in found.reason


def test_damaged_files_raise_nothing(folder: Path) -> None:
    whole = compiled(folder, "-shared", "-fPIC", "-O2", "host.c")
    for cut in range(0, len(whole), 211):
        read(whole[:cut], A)
    step = 37
    for at in range(0, len(whole), step):
        read(whole[:at] + b"\xff" * 8 + whole[at + 8 :], A)
    windows = dll(b"\xff\x15" + bytes(4), b"_Z1av\0", imported=b"__cudaRegisterFunction")
    for at in range(0, len(windows), step):
        read(windows[:at] + b"\xff" * 8 + windows[at + 8 :], A)
