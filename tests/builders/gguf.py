from __future__ import annotations

import struct


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def model(*, version: int = 3, tensors: int = 2, keys: bytes | None = None, count: int = 3) -> bytes:
    if keys is None:
        keys = text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
        keys += text(b"general.file_type") + struct.pack("<II", 4, 7)
        keys += text(b"tokens") + struct.pack("<IIQ", 9, 8, 2) + text(b"x") + text(b"yy")
    data = b"GGUF" + struct.pack("<IQQ", version, tensors, count) + keys
    for index in range(tensors):
        data += text(b"blk.%d.w" % index) + struct.pack("<IQQIQ", 2, 32, 32, 8 if index else 0, 0)
    return data
