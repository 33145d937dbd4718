"""Clang offload bundles, plain and compressed, and their targets."""

from __future__ import annotations

from construct import Bytes, Const, Int16ul, Int32ul, Int64ul, PaddedString, Struct, this

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

ENTRY = Struct(
    "offset" / Int64ul * "of the code object, from the bundle's magic",
    "size" / Int64ul * "bytes; 0 for the host entry",
    "id_size" / Int64ul * "bytes of the id, no NUL",
    "id" / PaddedString(this.id_size, "utf8") * "kind-triple-target, as hipv4-amdgcn-amd-amdhsa--gfx90a:xnack+",
)

BUNDLE = Struct(
    "magic" / Const(n.BUNDLE_MAGIC) * "__CLANG_OFFLOAD_BUNDLE__",
    "count" / Int64ul * "entries that follow",
    "entries" / ENTRY[this.count] * "without padding; code objects are aligned to 4096",
)

CCOB_V1 = Struct(
    "magic" / Const(n.CCOB_MAGIC) * "CCOB",
    "version" / Int16ul * "1",
    "method" / Int16ul * "0 zlib, 1 zstd",
    "uncompressed_size" / Int32ul * "bytes of the bundle inside",
    "hash" / Bytes(8) * "first 8 bytes of its MD5",
)

CCOB_V2 = Struct(
    "magic" / Const(n.CCOB_MAGIC) * "CCOB",
    "version" / Int16ul * "2",
    "method" / Int16ul * "0 zlib, 1 zstd",
    "total_size" / Int32ul * "bytes of it all, header included",
    "uncompressed_size" / Int32ul * "bytes of the bundle inside",
    "hash" / Bytes(8) * "first 8 bytes of its MD5",
)

CCOB_V3 = Struct(
    "magic" / Const(n.CCOB_MAGIC) * "CCOB",
    "version" / Int16ul * "3",
    "method" / Int16ul * "0 zlib, 1 zstd",
    "total_size" / Int64ul * "bytes of it all, header included",
    "uncompressed_size" / Int64ul * "bytes of the bundle inside",
    "hash" / Bytes(8) * "first 8 bytes of its MD5",
)

DOC = FormatDoc(
    name="offload_bundle",
    title="clang offload bundle",
    summary="Code objects for several AMD (or SYCL) targets; in .hip_fatbin one bundle a translation unit.",
    layouts=(("bundle", BUNDLE), ("entry", ENTRY), ("CCOB version 1", CCOB_V1), ("CCOB version 2", CCOB_V2), ("CCOB version 3", CCOB_V3)),
    notes=(
        "Step over a compressed bundle by its size: its magic also occurs inside payloads.",
        "A version 1 bundle has no size: its end is that of its zstd or zlib stream.",
        "The first entry is the host's, empty, at the offset of the next one: an offset is not unique.",
    ),
    references=("LLVM, ClangOffloadBundler", "built and read back with clang 22"),
)
