"""LLVM's OffloadBinary: device images with a table of strings (``.llvm.offloading``)."""

from __future__ import annotations

from construct import Const, Int16ul, Int32ul, Int64ul, Struct

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

HEADER = Struct(
    "magic" / Const(n.OFFLOAD_BINARY_MAGIC) * "10ff10ad",
    "version" / Int32ul * "1, 2 or 3",
    "size" / Int64ul * "bytes of it all; the next one starts there, at a multiple of 8",
    "entry_offset" / Int64ul * "of the entries, from the magic",
    "entry_size" / Int64ul * "version 1: bytes of its one entry, 40; later: number of entries",
)

ENTRY = Struct(
    "image_kind" / Int16ul * "what the image is, see below",
    "offload_kind" / Int16ul * "who wrote it, see below",
    "flags" / Int32ul * "0x1: no image, strings alone",
    "string_offset" / Int64ul * "of the pairs, from the magic",
    "string_count" / Int64ul * "pairs",
    "image_offset" / Int64ul * "of the image, from the magic",
    "image_size" / Int64ul * "bytes of the image",
)

STRING = Struct(
    "key" / Int64ul * "offset of its text, from the magic: triple, arch, ...",
    "value" / Int64ul * "offset of its text, from the magic; from version 2 on the size of the value follows (64 bits)",
)

DOC = FormatDoc(
    name="offload_binary",
    title="LLVM offload binary",
    summary="Device images with triple and arch; in .llvm.offloading several such files, one behind the other.",
    layouts=(("header", HEADER), ("entry", ENTRY), ("pair of strings", STRING)),
    values=(
        ("image_kind", (("1", "object"), ("2", "LLVM bitcode"), ("3", "cubin"), ("4", "fatbin"), ("5", "PTX"))),
        ("offload_kind", (("1", "OpenMP"), ("2", "CUDA"), ("4", "HIP"), ("8", "SYCL"))),
    ),
    references=("LLVM, llvm/Object/OffloadBinary.h", "written and read back with clang 22 (HIP, -fgpu-rdc, OpenMP)"),
    notes=(
        "Version 3 has a fifth header field: the size before compression, 0 when it is not compressed. Else everything behind the header "
        "is one zstd or zlib stream.",
    ),
)
