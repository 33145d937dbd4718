"""Host files put together by hand: a little x86-64 code, some constants, and as much of ELF or PE as is needed."""

from __future__ import annotations

import struct

from builders import pe

CODE, DATA = 0x401000, 0x402000


def elf(code: bytes, data: bytes, *, kind: int = 3, machine: int = 62, headers: bool = True) -> bytes:
    """An ELF64 with .text at 0x401000 and .rodata at 0x402000 (file offsets 0x1000 and 0x2000)."""
    names = b"\0.text\0.rodata\0.shstrtab\0"
    size = 0x2000 + len(data)
    rows = [(1, 1, 6, CODE, 0x1000, len(code)), (7, 1, 2, DATA, 0x2000, len(data)), (15, 3, 0, 0, size, len(names))]
    table = bytes(64) + b"".join(struct.pack("<IIQQQQIIQQ", *row, 0, 0, 16, 0) for row in rows)
    at = size + len(names)
    segments = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, CODE, CODE, len(code), len(code), 4096)
    segments += struct.pack("<IIQQQQQQ", 1, 4, 0x2000, DATA, DATA, len(data), len(data), 4096)
    counts = (4, 3) if headers else (0, 0)
    shoff = at if headers else 0
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", kind, machine, 1, 0, 64, shoff, 0, 64, 56, 2, 64, *counts)
    body = (head + segments).ljust(0x1000, b"\0") + code.ljust(0x1000, b"\0") + data
    return body + names + table


def dll(code: bytes, data: bytes, *, imported: bytes | None = None) -> bytes:
    """A DLL with .text at 0x180001000 and .rdata at 0x180002000; ``imported`` is a function whose slot is the last 16 bytes of .rdata.

    .rdata is filled up to 0x400 bytes; the import table takes the second half.
    """
    base, rva = 0x180000000, 0x2000
    half = data.ljust(0x200, b"\0")
    names, table = rva + 0x200, rva + 0x3F0
    tail = struct.pack("<QQ", rva + 0x240, 0) + bytes(0x30) + b"\0\0" + (imported or b"") + b"\0"
    tail = tail.ljust(0x100, b"\0") + struct.pack("<IIIII", names, 0, 0, rva + 0x180, table) + bytes(20)
    content = half + tail.ljust(0x1F0, b"\0") + struct.pack("<QQ", rva + 0x240, 0)
    made = bytearray(pe.dll([(b".text", code), (b".rdata", content)], base=base))
    optional = 64 + 4 + 20
    if imported is not None:
        struct.pack_into("<I", made, optional + 120, rva + 0x300)
    struct.pack_into("<I", made, made.index(b".text\0\0\0") + 36, 0x60000020)
    return bytes(made)


def lea(register: int, at: int, target: int) -> bytes:
    """``lea`` of an address into register 0 to 15, as the instruction at ``at``."""
    return bytes([0x48 | (register >> 3) << 2, 0x8D, 0x05 | (register & 7) << 3]) + struct.pack("<i", target - at - 7)
