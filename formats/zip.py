"""Zip and zip64."""

from __future__ import annotations

from construct import Bytes, Const, Int16ul, Int32ul, Int64ul, Struct, this

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

LOCAL = Struct(
    "magic" / Const(n.ZIP_LOCAL_MAGIC) * "PK 03 04",
    "version" / Int16ul * "needed to extract",
    "flags" / Int16ul * "1 encrypted, 8 data descriptor, 0x800 UTF-8",
    "method" / Int16ul * "0 stored, 8 deflate, 12 bzip2, 14 LZMA, 93 zstd",
    "time" / Int16ul * "DOS time",
    "date" / Int16ul * "DOS date",
    "crc32" / Int32ul * "of the unpacked bytes",
    "stored_size" / Int32ul * "0xffffffff: see zip64",
    "size" / Int32ul * "0xffffffff: see zip64",
    "name_length" / Int16ul * "bytes",
    "extra_length" / Int16ul * "bytes",
    "name" / Bytes(this.name_length) * "hostile text",
    "extra" / Bytes(this.extra_length) * "id 1: zip64 sizes and offset",
)

CENTRAL = Struct(
    "magic" / Const(n.ZIP_CENTRAL_MAGIC) * "PK 01 02",
    "made_by" / Int16ul * "system and version",
    "version" / Int16ul * "needed to extract",
    "flags" / Int16ul * "as in the local header",
    "method" / Int16ul * "as in the local header",
    "time" / Int16ul * "DOS time",
    "date" / Int16ul * "DOS date",
    "crc32" / Int32ul * "of the unpacked bytes",
    "stored_size" / Int32ul * "0xffffffff: see zip64",
    "size" / Int32ul * "0xffffffff: see zip64",
    "name_length" / Int16ul * "bytes",
    "extra_length" / Int16ul * "bytes",
    "comment_length" / Int16ul * "bytes",
    "disk" / Int16ul * "0",
    "internal" / Int16ul * "attributes",
    "external" / Int32ul * "attributes",
    "local_offset" / Int32ul * "of the local header; 0xffffffff: see zip64",
)

END = Struct(
    "magic" / Const(n.ZIP_END_MAGIC) * "PK 05 06",
    "disk" / Int16ul * "0",
    "directory_disk" / Int16ul * "0",
    "count_here" / Int16ul * "entries",
    "count" / Int16ul * "entries; 0xffff: see zip64",
    "size" / Int32ul * "bytes of the central directory",
    "offset" / Int32ul * "of the central directory",
    "comment_length" / Int16ul * "bytes",
)

END64 = Struct(
    "magic" / Const(n.ZIP64_END_MAGIC) * "PK 06 06",
    "record_size" / Int64ul * "bytes behind this field",
    "made_by" / Int16ul * "system and version",
    "version" / Int16ul * "45",
    "disk" / Int32ul * "0",
    "directory_disk" / Int32ul * "0",
    "count_here" / Int64ul * "entries",
    "count" / Int64ul * "entries",
    "size" / Int64ul * "bytes of the central directory",
    "offset" / Int64ul * "of the central directory",
)

LOCATOR64 = Struct(
    "magic" / Const(n.ZIP64_LOCATOR_MAGIC) * "PK 06 07",
    "disk" / Int32ul * "0",
    "offset" / Int64ul * "of the zip64 end record",
    "disks" / Int32ul * "1",
)

DOC = FormatDoc(
    name="zip",
    title="zip and zip64",
    summary="Wheels, conda packages, the tail of a llamafile. Read from the end record; stored members are read in place.",
    layouts=(
        ("local header", LOCAL),
        ("central directory entry", CENTRAL),
        ("end record", END),
        ("zip64 end record", END64),
        ("zip64 locator", LOCATOR64),
    ),
    references=("PKWARE APPNOTE 6.3.10",),
    limitations=("encrypted members and LZMA are not unpacked", "overlapping members are left out"),
)
