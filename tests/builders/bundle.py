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


def ccob(bundle: bytes, version: int, method: int = 1, *, body: bytes | None = None) -> bytes:
    raw = body if body is not None else zstandard.compress(bundle) if method else zlib.compress(bundle)
    digest = hashlib.md5(bundle).digest()[:8]
    head = b"CCOB" + struct.pack("<HH", version, method)
    if version == 1:
        return head + struct.pack("<I", len(bundle)) + digest + raw
    if version == 2:
        return head + struct.pack("<II", 24 + len(raw), len(bundle)) + digest + raw
    return head + struct.pack("<QQ", 32 + len(raw), len(bundle)) + digest + raw


def code_object(
    mach: int = 0x36, kernels: tuple[str, ...] = ("k",), *, version: int = 6, target: str | None = None, comment: bytes = b"",
    arguments: tuple[tuple[int, int, str], ...] = ((0, 8, "global_buffer"), (8, 4, "hidden_none")), notes: int = 1,
) -> bytes:  # fmt: skip
    """A code object with kernels of 12 VGPRs, 20 SGPRs, 64 bytes of LDS and 8 of scratch; ``notes`` notes share the kernels."""
    import msgpack

    def row(name: str) -> dict[str, object]:
        return {
            ".name": name, ".symbol": f"{name}.kd", ".vgpr_count": 12, ".agpr_count": 4, ".sgpr_count": 20, ".vgpr_spill_count": 1,
            ".sgpr_spill_count": 2, ".group_segment_fixed_size": 64, ".private_segment_fixed_size": 8, ".kernarg_segment_size": 16,
            ".kernarg_segment_align": 8, ".wavefront_size": 32, ".max_flat_workgroup_size": 256,
            ".args": [{".offset": offset, ".size": size, ".value_kind": kind} for offset, size, kind in arguments],
        }  # fmt: skip

    note = b""
    for index in range(notes):
        document: dict[str, object] = {"amdhsa.version": [1, 2], "amdhsa.kernels": [row(name) for name in kernels[index::notes]]}
        if target is not None:
            document["amdhsa.target"] = f"amdgcn-amd-amdhsa--{target}"
        packed = msgpack.packb(document)
        note += struct.pack("<III", 7, len(packed), 32) + b"AMDGPU\0\0" + packed + bytes(-len(packed) % 4)
    names = b"\0.comment\0.shstrtab\0"
    at = 64
    rows, body = [], b""
    for name, kind, data in ((0, 7, note), (1, 1, comment), (10, 3, names)):
        rows.append(struct.pack("<IIQQQQIIQQ", name, kind, 2, 0, at + len(body), len(data), 0, 0, 4, 0))
        body += data
    table = bytes(64) + b"".join(rows)
    ident = b"\x7fELF\x02\x01\x01\x40" + bytes([version - 2]) + bytes(7)
    return struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 224, 1, 0, 0, at + len(body), mach, 64, 56, 0, 64, 4, 3) + body + table


def wrapper(address: int, magic: int = 0x48495046) -> bytes:
    return struct.pack("<IIQQ", magic, 1, address, 0)


def offload_binary(image: bytes, kind: int, triple: str, arch: str, *, version: int = 1) -> bytes:
    texts = b"\0arch\0triple\0" + arch.encode() + b"\0" + triple.encode() + b"\0"
    strings, base = 32 + 40, 32 + 40 + 32
    value = base + 13
    start = base + len(texts) + -(base + len(texts)) % 8
    pairs = struct.pack("<QQQQ", base + 1, value, base + 6, value + len(arch) + 1)
    total = start + len(image)
    total += -total % 8
    head = struct.pack("<4sIQQQ", b"\x10\xff\x10\xad", version, total, 32, 40)
    entry = struct.pack("<HHIQQQQ", kind, 4, 0, strings, 2, start, len(image))
    data = head + entry + pairs + texts
    return (data + bytes(start - len(data)) + image).ljust(total, b"\0")


def kpack(objects: dict[str, dict[str, bytes]], *, zstd: bool = False, version: int = 1) -> bytes:
    """A kernel pack as rocm-kpack writes it: objects from 64 on, then the table of contents."""
    import msgpack

    body, blobs, toc, at = b"", [], {}, 64
    count = sum(len(each) for each in objects.values())
    if zstd:
        body += struct.pack("<I", count)
    for library, targets in objects.items():
        toc[library] = {}
        for target, data in targets.items():
            toc[library][target] = {"type": "hsaco", "ordinal": len(blobs), "original_size": len(data)}
            stored = zstandard.compress(data) if zstd else data
            body += struct.pack("<I", len(stored)) if zstd else b""
            blobs.append({"offset": at + len(body), "size": len(stored)})
            body += stored
    document: dict[str, object] = {"format_version": 1, "group_name": "test", "gfx_arch_family": "gfx103X", "toc": toc}
    document["compression_scheme"] = "zstd-per-kernel" if zstd else "none"
    document |= {"zstd_offset": 64, "zstd_size": len(body)} if zstd else {"blobs": blobs}
    head = struct.pack("<4sIQ", b"KPAK", version, 64 + len(body))
    return head + bytes(48) + body + msgpack.packb(document)


def spirv(*entry_points: str, minor: int = 4) -> bytes:
    words = [0x07230203, 0x10000 | minor << 8, 0, 100, 0]
    for index, name in enumerate(entry_points):
        raw = name.encode() + b"\0"
        raw += bytes(-len(raw) % 4)
        words += [(3 + len(raw) // 4) << 16 | 15, 6, index + 1, *struct.unpack(f"<{len(raw) // 4}I", raw)]
    words += [5 << 16 | 54, 1, 2, 0, 3, 1 << 16 | 56]
    return struct.pack(f"<{len(words)}I", *words)


def metallib(*functions: str) -> bytes:
    """A Metal library as far as its function list: header of 88 bytes, then for each function tagged values."""
    body = struct.pack("<I", len(functions))
    for name in functions:
        tags = b"NAME" + struct.pack("<H", len(name) + 1) + name.encode() + b"\0" + b"TYPE" + struct.pack("<H", 1) + b"\2" + b"ENDT"
        body += struct.pack("<I", len(tags) + 4) + tags
    head = b"MTLB" + struct.pack("<HHHBBHH", 0x8001, 2, 7, 0, 0x81, 14, 0) + struct.pack("<QQ", 88 + len(body), 88)
    return head + bytes(88 - len(head)) + body
