"""The processor, features and version that an AMDGPU ELF header names (reference: AMDGPU usage, e_flags; read back from LLVM 22)."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.formats import numbers as n

MACH = {
    0x20: "gfx600", 0x21: "gfx601", 0x3A: "gfx602", 0x22: "gfx700", 0x23: "gfx701", 0x24: "gfx702", 0x25: "gfx703",
    0x26: "gfx704", 0x3B: "gfx705", 0x28: "gfx801", 0x29: "gfx802", 0x2A: "gfx803", 0x3C: "gfx805", 0x2B: "gfx810",
    0x2C: "gfx900", 0x2D: "gfx902", 0x2E: "gfx904", 0x2F: "gfx906", 0x30: "gfx908", 0x31: "gfx909", 0x3F: "gfx90a",
    0x32: "gfx90c", 0x4C: "gfx942", 0x4F: "gfx950", 0x33: "gfx1010", 0x34: "gfx1011", 0x35: "gfx1012", 0x42: "gfx1013",
    0x36: "gfx1030", 0x37: "gfx1031", 0x38: "gfx1032", 0x39: "gfx1033", 0x3E: "gfx1034", 0x3D: "gfx1035", 0x45: "gfx1036",
    0x41: "gfx1100", 0x46: "gfx1101", 0x47: "gfx1102", 0x44: "gfx1103", 0x43: "gfx1150", 0x4A: "gfx1151", 0x55: "gfx1152",
    0x58: "gfx1153", 0x48: "gfx1200", 0x4E: "gfx1201", 0x49: "gfx1250", 0x5A: "gfx1251", 0x40: "gfx940", 0x4B: "gfx941",
    0x51: "gfx9-generic", 0x52: "gfx10-1-generic", 0x53: "gfx10-3-generic", 0x54: "gfx11-generic",
    0x59: "gfx12-generic", 0x5F: "gfx9-4-generic",
}  # fmt: skip
_FEATURE = {2: "-", 3: "+"}
_OSABI_HSA = 64
_V3, _V6 = 3, 6


class CodeObjectHeader(NamedTuple):
    """What an ELF header says of a code object: its target with features, its version (2 to 6), that of a generic target."""

    target: str
    version: int | None
    generic_version: int = 0


def identify(header: bytes) -> CodeObjectHeader:
    """The identity in the first 64 bytes of a code object; the target is ``gfx_unknown`` when they are none."""
    if len(header) < 64 or header[:4] != n.ELF_MAGIC:
        return CodeObjectHeader("gfx_unknown", None)
    version = header[8] + 2 if header[7] == _OSABI_HSA else None
    flags = int.from_bytes(header[48:52], "little")
    name = MACH.get(flags & 0xFF, f"mach_{flags & 0xFF:#x}")
    if version == _V3:
        xnack, sramecc = "+" if flags & 0x100 else "", "+" if flags & 0x200 else ""
    else:
        xnack, sramecc = _FEATURE.get(flags >> 8 & 3, ""), _FEATURE.get(flags >> 10 & 3, "")
    target = name + (f":sramecc{sramecc}" if sramecc else "") + (f":xnack{xnack}" if xnack else "")
    return CodeObjectHeader(target, version, flags >> 24 if version is not None and version >= _V6 else 0)
