from __future__ import annotations

import struct
import zlib

import lz4.block
import lz4.frame
import zstandard

PTX = b".version 8.4\n.target sm_75\n.address_size 64\n.visible .entry k(.param .u64 k_param_0, .param .u32 k_param_1)\n{\nret;\n}\n\0"


def pad8(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)


def entry(
    payload: bytes,
    *,
    kind: int = 1,
    arch: int = 75,
    flags: int = 0x11,
    major: int = 8,
    minor: int = 4,
    version: int = 0x0101,
    identifier: bytes = b"",
    options: bytes | None = None,
    compressed: int = 0,
    uncompressed: int = 0,
    key: int = 0,
    header_size: int | None = None,
    payload_size: int | None = None,
) -> bytes:
    extension = b""
    identifier_at = options_at = 0
    if identifier:
        identifier_at = 64
        extension += pad8(identifier + b"\0")
    if options is not None:
        options_at = 64 + len(extension)
        extension += struct.pack("<II", options_at + 8, len(options)) + pad8(options + b"\0")
    size = 64 + len(extension)
    stored = pad8(payload)
    return (
        struct.pack(
            "<HHIQ", kind, version, size if header_size is None else header_size, len(stored) if payload_size is None else payload_size
        )
        + struct.pack("<II", compressed, options_at)
        + struct.pack("<HHI", minor, major, arch)
        + struct.pack("<II", identifier_at, len(identifier))
        + struct.pack("<QQQ", flags, key, uncompressed)
        + extension
        + stored
    )


def packed(data: bytes, codec: str, **fields: int) -> bytes:
    blob, bit = {
        "zlib": lambda: (zlib.compress(data), 0x1000),
        "lz4": lambda: (lz4.block.compress(data, store_size=False), 0x2000),
        "lz4-frame": lambda: (lz4.frame.compress(data), 0x4000),
        "zstd": lambda: (zstandard.compress(data), 0x8000),
    }[codec]()
    fields["flags"] = fields.get("flags", 0x11) | bit
    return entry(blob, compressed=len(blob), uncompressed=len(data), **fields)


def container(*entries: bytes, version: int = 1, header_size: int = 16, size: int | None = None) -> bytes:
    body = b"".join(entries)
    return b"\x50\xed\x55\xba" + struct.pack("<HHQ", version, header_size, len(body) if size is None else size) + body


def concatenated(images: list[tuple[int, int, int, bytes]]) -> bytes:
    """(kind, arch, flags, data) of each image, in one zstd blob."""
    blob, subs = b"", b""
    for kind, arch, flags, data in images:
        data = pad8(data)
        subs += struct.pack("<HHIQIIHHIIIQQQ", kind, 0x101, len(blob), len(data), 0, 0, 4, 8, arch, 0, 0, flags, 0, 0)
        blob += data
    stored = zstandard.compress(blob)
    block = struct.pack("<II", len(images), 8 + len(subs)) + subs
    head = struct.pack("<HHIQ", 0x100, 0x101, 64 + len(block), len(pad8(stored)))
    head += struct.pack("<IIHHIIIQQQ", len(stored), 64, 0, 1, 0, 0, 0, 0x8011, 0, len(blob))
    return head + block + pad8(stored)
