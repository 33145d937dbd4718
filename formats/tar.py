"""Tar archives."""

from __future__ import annotations

from construct import Bytes, Struct

from fatpatch.formats._types import FormatDoc

HEADER = Struct(
    "name" / Bytes(100) * "NUL-terminated",
    "mode" / Bytes(8) * "octal",
    "owner" / Bytes(8) * "octal",
    "group" / Bytes(8) * "octal",
    "size" / Bytes(12) * "octal, or base 256 when the first bit is set",
    "time" / Bytes(12) * "octal",
    "checksum" / Bytes(8) * "sum of all bytes with these eight taken as spaces",
    "kind" / Bytes(1) * "0 file, L GNU long name, x pax records, g global pax records",
    "link" / Bytes(100) * "NUL-terminated",
    "magic" / Bytes(6) * "ustar and a NUL",
    "version" / Bytes(2) * "00",
    "owner_name" / Bytes(32) * "NUL-terminated",
    "group_name" / Bytes(32) * "NUL-terminated",
    "major" / Bytes(8) * "devices only",
    "minor" / Bytes(8) * "devices only",
    "prefix" / Bytes(155) * "put before the name, with a slash",
    "padding" / Bytes(12) * "zeros",
)

DOC = FormatDoc(
    name="tar",
    title="tar archive",
    summary="512-byte headers, each followed by its data, padded to 512. Read in place once the outer compression is off.",
    layouts=(("header", HEADER),),
    references=("POSIX.1-2017, pax", "GNU tar manual"),
    limitations=("sparse members are not read",),
)
