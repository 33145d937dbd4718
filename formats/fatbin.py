"""CUDA fatbin: a 16-byte container header, then entries back to back until the payload size is used up."""

from __future__ import annotations

from construct import Bytes, Const, FixedSized, GreedyRange, Int16ul, Int32ul, Int64ul, Struct, this

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

CONTAINER_HEADER = Struct(
    "magic" / Const(n.FATBIN_MAGIC, Int32ul) * "0xBA55ED50",
    "version" / Int16ul * "1; a driver refuses others (error 200)",
    "header_size" / Int16ul * "16",
    "payload_size" / Int64ul * "bytes of all entries, this header not counted; a multiple of 8",
)

ENTRY_HEADER = Struct(
    "kind" / Int16ul * "what the payload is, see the table of kinds",
    "version" / Int16ul * "0x0101 in every entry ever seen; ignored by tools and driver",
    "header_size" / Int32ul * "these 64 bytes and the extension; a multiple of 8",
    "payload_size" / Int64ul * "stored bytes, padded with zeros to a multiple of 8",
    "compressed_size" / Int32ul * "true bytes of the compressed blob; 0 when not compressed",
    "options_offset" / Int32ul * "from the entry's start to the options block; 0: none",
    "minor" / Int16ul * "PTX: ISA minor; cubin: ABI version (7 or 8)",
    "major" / Int16ul * "PTX: ISA major; cubin: 1",
    "arch" / Int32ul * "SM number without suffix; 0 makes a driver refuse the module (error 999)",
    "identifier_offset" / Int32ul * "from the entry's start; 0: none",
    "identifier_length" / Int32ul * "without the NUL",
    "flags" / Int64ul * "see the table of flags",
    "key" / Int64ul * "0, but not in obfuscated LTO-IR: keep verbatim",
    "uncompressed_size" / Int64ul * "0 when not compressed",
)

OPTIONS_BLOCK = Struct(
    "text_offset" / Int32ul * "from the entry's start",
    "text_length" / Int32ul * "without the NUL",
)

CONCATENATION_BLOCK = Struct(
    "count" / Int32ul * "images in the blob",
    "size" / Int32ul * "bytes of this block, these 8 included; `count` sub-headers follow",
)

SUB_HEADER = Struct(
    "kind" / Int16ul * "as in an entry",
    "version" / Int16ul * "0x0101",
    "image_offset" / Int32ul * "of the image in the decompressed blob",
    "image_size" / Int64ul * "bytes of the image there",
    "compressed_size" / Int32ul * "0",
    "options_offset" / Int32ul * "from the sub-header's start; 0: none",
    "minor" / Int16ul * "as in an entry",
    "major" / Int16ul * "as in an entry",
    "arch" / Int32ul * "as in an entry",
    "identifier_offset" / Int32ul * "from the sub-header's start; 0: none",
    "identifier_length" / Int32ul * "without the NUL",
    "flags" / Int64ul * "without compression bits",
    "key" / Int64ul * "0",
    "uncompressed_size" / Int64ul * "0",
)

ENTRY = Struct(
    "header" / ENTRY_HEADER * "64 bytes",
    "extension" / Bytes(this.header.header_size - n.ENTRY_HEADER_SIZE) * "identifier, options block; kept verbatim",
    "payload" / Bytes(this.header.payload_size) * "the image, as stored",
)

FATBIN = Struct(
    "header" / CONTAINER_HEADER * "16 bytes",
    "entries" / FixedSized(this.header.payload_size, GreedyRange(ENTRY)) * "no count, no index, no end mark",
)

KINDS = tuple((f"{number:#x}", words) for number, _, _, words in n.FATBIN_ENTRIES)

FLAGS = (
    ("0x1", "64-bit"),
    ("0x2", "debug information"),
    ("0x4, 0x8", "CUDA, OpenCL"),
    ("0x10, 0x20, 0x40", "host Linux, macOS, Windows"),
    ("0x1000", "zlib stream"),
    ("0x2000", "one raw LZ4 block"),
    ("0x4000", "LZ4 frame"),
    ("0x8000", "zstd frame"),
    ("0x10000", "obfuscated"),
    ("0x100000", "arch-specific target (sm_90a)"),
    ("0x200000", "family-specific target (sm_100f)"),
    ("0x1000000", "the cubin holds Mercury or compatibility data"),
)

DOC = FormatDoc(
    name="fatbin",
    title="CUDA fatbin",
    summary="One module's images for several targets. Little-endian. A section holds many fatbins back to back.",
    layouts=(
        ("container header", CONTAINER_HEADER),
        ("entry header", ENTRY_HEADER),
        ("entry", ENTRY),
        ("options block", OPTIONS_BLOCK),
        ("concatenation block (kind 0x100)", CONCATENATION_BLOCK),
        ("sub-header (kind 0x100)", SUB_HEADER),
    ),
    values=(("kinds", KINDS), ("flags", FLAGS)),
    notes=(
        "Several compression bits: the decoder takes 0x1000, then 0x2000, 0x4000, 0x8000.",
        "The extension differs by toolkit (64 to 128 bytes of header); hop by header_size + payload_size only.",
        "Between fatbins: nothing in ELF files, 8 zero bytes behind about half of them in PE files.",
        "Zero bytes counted by payload_size hang NVIDIA's driver; zero bytes behind the container are harmless.",
    ),
    references=("read back from 18,166 entries of CUDA 11.8 to 13.2; every one re-serialised byte for byte",),
    limitations=("obfuscated LTO-IR is kept opaque", "the old container 0x1EE55A01 (before CUDA 4) is not read"),
)
