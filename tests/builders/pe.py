from __future__ import annotations

import struct


def dll(sections: list[tuple[bytes, bytes]], *, base: int = 0x180000000) -> bytes:
    """A minimal PE32+ DLL; section addresses are 0x1000, 0x2000, ..."""
    optional = struct.pack("<H", 0x20B) + bytes(22) + struct.pack("<Q", base) + bytes(76) + struct.pack("<I", 16) + bytes(128)
    header = b"MZ" + bytes(58) + struct.pack("<I", 64)
    start = 0x400
    table, body = b"", b""
    for index, (name, data) in enumerate(sections):
        raw = data + bytes(-len(data) % 0x200)
        table += struct.pack("<8sIIIIIIHHI", name, len(data), 0x1000 * (index + 1), len(raw), start + len(body), 0, 0, 0, 0, 0x40000040)
        body += raw
    head = header + b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, len(optional), 0x2022) + optional + table
    return head + bytes(start - len(head)) + body


def coff_object(sections: list[tuple[str, bytes]]) -> bytes:
    """A COFF object with long section names in its string table."""
    strings, table, body = b"", b"", b""
    start = 20 + 40 * len(sections)
    for name, data in sections:
        raw = f"/{4 + len(strings)}".encode() if len(name) > 8 else name.encode()
        strings += name.encode() + b"\0" if len(name) > 8 else b""
        table += struct.pack("<8sIIIIIIHHI", raw, 0, 0, len(data), start + len(body), 0, 0, 0, 0, 0x40000040)
        body += data
    symbols = start + len(body)
    return (
        struct.pack("<HHIIIHH", 0x8664, len(sections), 0, symbols, 0, 0, 0) + table + body + struct.pack("<I", 4 + len(strings)) + strings
    )
