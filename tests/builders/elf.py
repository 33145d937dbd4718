from __future__ import annotations

import struct


def shared_object(sections: list[tuple[str, bytes]], *, machine: int = 62, headers: bool = True, base: int = 0x10000) -> bytes:
    """A minimal ELF64 with one writable LOAD segment that maps the whole file at ``base``; data sections aligned to 16."""
    body, names, rows, at = b"", b"\0", [], 120
    for name, data in [*sections, (".shstrtab", b"")]:
        body += bytes(-at % 16)
        at += -at % 16
        if name == ".shstrtab":
            data = names + b".shstrtab\0"
        rows.append((len(names), 3 if name == ".shstrtab" else 1, 2, base + at, at, len(data)))
        names += name.encode() + b"\0"
        body += data
        at += len(data)
    table = bytes(64) + b"".join(struct.pack("<IIQQQQIIQQ", *row, 0, 0, 16, 0) for row in rows)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    count = len(rows) + 1
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        ident,
        3,
        machine,
        1,
        0,
        64,
        at if headers else 0,
        0,
        64,
        56,
        1,
        64,
        count if headers else 0,
        count - 1 if headers else 0,
    )
    total = at + (len(table) if headers else 0)
    segment = struct.pack("<IIQQQQQQ", 1, 6, 0, base, base, total, total, 4096)
    return header + segment + body + (table if headers else b"")


def offset_of(data: bytes, needle: bytes) -> int:
    return data.index(needle)


def wrapper(address: int, version: int = 1) -> bytes:
    return struct.pack("<IIQQ", 0x466243B1, version, address, 0)
