from __future__ import annotations

import struct


def cubin(
    *, arch: int = 75, new: bool = False, accelerated: bool = False, machine: int = 190, shnum: int | None = None, shoff: int | None = None,
    shstrndx: int | None = None, flags: int | None = None, compat_a: bool = False, arguments: bytes = b"", kernels: tuple[str, ...] = ("k",), body: bytes = bytes(0x180),
) -> bytes:  # fmt: skip
    """A cubin with kernels of 40 registers, 16 bytes of stack, 256 bytes of shared memory and parameters (u64, u32)."""
    names, strings = b"\0", b"\0"
    sections: list[tuple[str, int, bytes, int, int, int]] = []  # name, type, data, link, info, size

    def add(name: str, kind: int, data: bytes, link: int = 0, info: int = 0, size: int | None = None) -> None:
        sections.append((name, kind, data, link, info, len(data) if size is None else size))

    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    module = b""
    for index, kernel in enumerate(kernels, 1):
        symbols += struct.pack("<IBBHQQ", len(strings), 0x12, 0x10, 4, 0, len(body))
        strings += kernel.encode() + b"\0"
        module += struct.pack("<BBHII", 4, 0x2F, 8, index, 40) + struct.pack("<BBHII", 4, 0x12, 8, index, 16)
    add(".symtab", 2, symbols, link=2)
    add(".strtab", 3, strings)
    add(".nv.info", 0x70000000, module)
    for kernel in kernels:
        add(f".text.{kernel}", 1, body, info=40 << 24)
        own = struct.pack("<BBH", 3, 0x1B, 255) + struct.pack("<BBHIHHI", 4, 0x17, 12, 0, 1, 8, 4 << 18 | 0x1F000)
        own += struct.pack("<BBHIHHHH", 4, 0x45, 12, 0, 0, 0, 8, 0) + struct.pack("<BBHIII", 4, 0x05, 12, 64, 2, 1)
        add(f".nv.info.{kernel}", 0x70000000, own)
        add(f".nv.constant0.{kernel}", 1, bytes(0x160 + 12))
        add(f".nv.shared.{kernel}", 8, b"", size=256)
    if compat_a:
        add(".nv.compat", 0x70000086, struct.pack("<BBBB", 2, 9, 1, 0))
    if new:
        add(".note.nv.cuinfo", 7, struct.pack("<III", 12, 8, 1000) + b"NVIDIA Corp\0" + struct.pack("<HHI", 2, arch, 130))
        text = b"\0ptxas\0Cuda compilation tools, release 13.0, V13.0.88\0build\0" + arguments + b"\0"
        add(
            ".note.nv.tkinfo",
            7,
            struct.pack("<III", 12, 24 + len(text), 2000) + b"NVIDIA Corp\0" + struct.pack("<6I", 2, 0, 1, 7, 51, 57) + text,
        )
    add(".shstrtab", 3, b"")
    table, body, at = bytes(64), b"", 64
    for name, *_ in sections:
        names += name.encode() + b"\0"
    for name, kind, data, link, info, size in sections:
        data, size = (names, len(names)) if name == ".shstrtab" else (data, size)
        table += struct.pack("<IIQQQQIIQQ", names.index(b"\0" + name.encode() + b"\0") + 1, kind, 0, 0, at, size, link, info, 1, 0)
        body += data
        at += len(data)
    if flags is None:
        flags = (0x06000002 | arch << 8 | (8 if accelerated else 0)) if new else (arch | 0x500 | arch << 16 | (0x800 if accelerated else 0))
    ident = b"\x7fELF\x02\x01\x01" + (b"\x41\x08" if new else b"\x33\x07") + bytes(7)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, machine, 1 if new else 129, 0, 0, at if shoff is None else shoff, flags, 64, 56, 0, 64,
        len(sections) + 1 if shnum is None else shnum, len(sections) if shstrndx is None else shstrndx,
    )  # fmt: skip
    return header + body + table
