from __future__ import annotations

import hashlib
import struct
import zlib

import zstandard

HOST = b"host-x86_64-unknown-linux-gnu-"


def plain(images: list[tuple[str, bytes]]) -> bytes:
    table = struct.pack("<Q", len(images) + 1)
    at = 4096
    rows, body = [(at, 0, HOST)], b""
    for target, data in images:
        rows.append((at + len(body), len(data), b"hipv4-amdgcn-amd-amdhsa--" + target.encode()))
        body += data + bytes(-len(data) % 4096)
    for offset, size, identity in rows:
        table += struct.pack("<QQQ", offset, size, len(identity)) + identity
    head = b"__CLANG_OFFLOAD_BUNDLE__" + table
    return head + bytes(4096 - len(head)) + body


def ccob(bundle: bytes, version: int, method: int = 1) -> bytes:
    raw = zstandard.compress(bundle) if method else zlib.compress(bundle)
    digest = hashlib.md5(bundle).digest()[:8]
    head = b"CCOB" + struct.pack("<HH", version, method)
    if version == 1:
        return head + struct.pack("<I", len(bundle)) + digest + raw
    if version == 2:
        return head + struct.pack("<II", 24 + len(raw), len(bundle)) + digest + raw
    return head + struct.pack("<QQ", 32 + len(raw), len(bundle)) + digest + raw


def code_object(mach: int = 0x36, kernels: tuple[str, ...] = ("k",)) -> bytes:
    import msgpack

    note = msgpack.packb(
        {
            "amdhsa.version": [1, 2],
            "amdhsa.kernels": [
                {
                    ".name": name,
                    ".symbol": f"{name}.kd",
                    ".vgpr_count": 12,
                    ".group_segment_fixed_size": 64,
                    ".private_segment_fixed_size": 8,
                    ".max_flat_workgroup_size": 256,
                    ".args": [
                        {".offset": 0, ".size": 8, ".value_kind": "global_buffer"},
                        {".offset": 8, ".size": 4, ".value_kind": "hidden_none"},
                    ],
                }
                for name in kernels
            ],
        }
    )
    note = struct.pack("<III", 7, len(note), 32) + b"AMDGPU\0\0" + note + bytes(-len(note) % 4)
    at = 64 + len(note)
    table = bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 7, 2, 0, 64, len(note), 0, 0, 4, 0)
    ident = b"\x7fELF\x02\x01\x01\x40\x04" + bytes(7)
    return struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 224, 1, 0, 0, at, mach, 64, 56, 0, 64, 2, 0) + note + table
