from __future__ import annotations

import struct
import zlib


def zip_file(
    members: list[tuple[bytes, bytes]], *, method: int = 0, prefix: bytes = b"", flags: int = 0, zip64: bool = False, shift: int = 0
) -> bytes:
    data, directory = prefix, b""
    for name, content in members:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        raw = compressor.compress(content) + compressor.flush() if method == 8 else content
        at = len(data) - shift
        data += struct.pack(
            "<4sHHHHHIIIHH", b"PK\3\4", 20, flags, method, 0, 0x21, zlib.crc32(content), len(raw), len(content), len(name), 0
        )
        data += name + raw
        full = 0xFFFFFFFF
        extra = struct.pack("<HHQQQ", 1, 24, len(content), len(raw), at) if zip64 else b""
        sizes = (full, full) if zip64 else (len(raw), len(content))
        directory += struct.pack("<4sHHHHHHIII", b"PK\1\2", 20, 20, flags, method, 0, 0x21, zlib.crc32(content), *sizes)
        directory += struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, full if zip64 else at) + name + extra
    start = len(data) - shift
    data += directory
    if zip64:
        at = len(data)
        data += b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, len(members), len(members), len(directory), start)
        data += b"PK\6\7" + struct.pack("<IQI", 0, at, 1)
        return data + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, len(members), len(members), len(directory), start, 0)


def tar_file(members: list[tuple[str, bytes]], *, gnu_long: bool = False, pax: bool = False) -> bytes:
    data = b""
    for name, content in members:
        if gnu_long:
            data += _tar_member("././@LongLink", name.encode() + b"\0", b"L")
        if pax:
            record = f" path={name}\n"
            length = len(record) + 2 if len(record) + 2 < 100 else len(record) + 3
            data += _tar_member("pax", f"{length}{record}".encode(), b"x")
        data += _tar_member("short" if gnu_long or pax else name, content, b"0")
    return data + bytes(1024)


def _tar_member(name: str, content: bytes, kind: bytes) -> bytes:
    head = bytearray(512)
    head[0 : len(name)] = name.encode()
    head[100:107], head[124:135], head[156:157], head[257:263] = b"0000644", b"%011o" % len(content), kind, b"ustar\0"
    head[148:156] = b" " * 8
    head[148:155] = b"%06o\0" % sum(head)
    return bytes(head) + content + bytes(-len(content) % 512)


def ar_file(members: list[tuple[str, bytes]], *, bsd: bool = False) -> bytes:
    data = b"!<arch>\n"
    if not bsd:
        table = b"".join(name.encode() + b"/\n" for name, _ in members)
        data += _ar_member(b"//", table)
    at = 0
    for name, content in members:
        raw = name.encode()
        data += _ar_member(b"#1/%d" % len(raw), raw + content) if bsd else _ar_member(b"/%d" % at, content)
        at += len(raw) + 2
    return data


def _ar_member(name: bytes, content: bytes) -> bytes:
    head = b"%-16s%-12s%-6s%-6s%-8s%-10d`\n" % (name, b"0", b"0", b"0", b"644", len(content))
    return head + content + (b"\n" if len(content) % 2 else b"")


def ape(header: bytes, members: list[tuple[bytes, bytes]]) -> bytes:
    """An APE that is not for Windows: its ELF header in octal inside the script, its members behind it."""
    octal = "".join(f"\\{byte:03o}" for byte in header).replace("\\105\\114\\106", "ELF", 1)
    return zip_file(members, prefix=b"jartsr='\n'\nprintf '" + octal.encode() + b"' >&7\n" + bytes(64))
