"""Bundles as a runtime gets them: from the memory of a process that loaded the library, or of a Windows image laid out for it."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import zlib
from pathlib import Path

import zstandard
from edit.test_pe import Pe

_ROW = struct.Struct("<QQQ")
_MOVED = 0x7FF612340000
Objects = dict[str, str]
"""Entry id to the sha256 of its code object."""


def objects(bundle: bytes) -> Objects:
    """The entries of a bundle, unpacked by the rules of LLVM's documentation, hash and alignment checked."""
    if bundle[:4] == b"CCOB":
        version, method = struct.unpack_from("<HH", bundle, 4)
        size, digest, start = {
            1: (struct.unpack_from("<I", bundle, 8)[0], bundle[12:20], 20),
            2: (struct.unpack_from("<I", bundle, 12)[0], bundle[16:24], 24),
            3: (struct.unpack_from("<Q", bundle, 16)[0], bundle[24:32], 32),
        }[version]
        stored = bundle[start:]
        bundle = zstandard.ZstdDecompressor().decompress(stored) if method else zlib.decompress(stored)
        assert len(bundle) == size
        assert hashlib.md5(bundle).digest()[:8] == digest
    assert bundle[:24] == b"__CLANG_OFFLOAD_BUNDLE__"
    (count,) = struct.unpack_from("<Q", bundle, 24)
    found, at = {}, 32
    for _ in range(count):
        offset, size, length = _ROW.unpack_from(bundle, at)
        identity = bundle[at + 24 : at + 24 + length].decode()
        assert identity not in found
        assert offset % 4096 == 0
        assert offset + size <= len(bundle)
        found[identity] = hashlib.sha256(bundle[offset : offset + size]).hexdigest()
        at += 24 + length
    return {identity: digest for identity, digest in found.items() if not identity.startswith("host")}


def build_probe(folder: Path) -> Path:
    """The program that loads a library and writes out what it registers."""
    program = folder / "hip_probe"
    source = Path(__file__).with_name("hip_probe.c")
    subprocess.run(["gcc", "-O1", "-rdynamic", source, "-o", program, "-ldl"], check=True)
    return program


def loaded(probe: Path, library: Path) -> list[Objects]:
    """The bundles that an ELF library hands to its runtime, in the order of its constructors."""
    done = subprocess.run([probe, library.resolve()], capture_output=True, check=True)
    found, at = [], 0
    while at < len(done.stdout):
        (size,) = struct.unpack_from("<Q", done.stdout, at)
        assert size, "a bundle does not lie at a multiple of 4096"
        found.append(objects(done.stdout[at + 8 : at + 8 + size]))
        at += 8 + size
    return found


def mapped(data: bytes) -> list[Objects]:
    """The bundles of a DLL, through its relocated wrappers in memory."""
    pe = Pe(data)
    image = bytes(pe.mapped(_MOVED))
    found = []
    for section in pe.sections:
        if section.name.rstrip(b"\0") != b".hipFatB":
            continue
        for at in range(section.address, section.address + section.virtual_size, 24):
            magic, version, pointer, _ = struct.unpack_from("<IIQQ", image, at)
            assert (magic, version, pointer % 4096) == (0x48495046, 1, 0)
            start = pointer - _MOVED
            size = struct.unpack_from("<Q", image, start + 8)[0]
            found.append(objects(image[start : start + size]))
    return found
