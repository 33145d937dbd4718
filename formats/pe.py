"""PE and COFF: the headers that lead to sections."""

from __future__ import annotations

from construct import Bytes, Int16ul, Int32ul, Struct

from fatpatch.formats._types import FormatDoc

FILE_HEADER = Struct(
    "machine" / Int16ul * "0x8664 x86-64, 0xAA64 aarch64",
    "sections" / Int16ul * "section headers",
    "time" / Int32ul * "time stamp or hash",
    "symbols" / Int32ul * "offset of the symbol table; the string table follows it",
    "symbol_count" / Int32ul * "18 bytes each",
    "optional_size" / Int16ul * "bytes of the optional header; 0 in objects",
    "flags" / Int16ul * "0x2000 DLL",
)

SECTION = Struct(
    "name" / Bytes(8) * "cut to 8 characters; /123: offset in the string table",
    "virtual_size" / Int32ul * "exact bytes",
    "address" / Int32ul * "relative to the image base",
    "raw_size" / Int32ul * "bytes in the file, padded",
    "offset" / Int32ul * "in the file",
    "relocations" / Int32ul * "objects only",
    "line_numbers" / Int32ul * "0",
    "relocation_count" / Int16ul * "objects only",
    "line_number_count" / Int16ul * "0",
    "flags" / Int32ul * "0x80 uninitialised, 0x20000000 X, 0x80000000 W",
)

DOC = FormatDoc(
    name="pe",
    title="PE and COFF",
    summary="Windows DLLs, executables, Node add-ons, and objects. The PE signature is at the offset stored at 0x3c.",
    layouts=(("file header", FILE_HEADER), ("section header", SECTION)),
    values=(
        (
            "section names",
            (
                (".nv_fatb", ".nv_fatbin"),
                ("__nv_rel", "__nv_relfatbin"),
                (".nvFatBi", ".nvFatBinSegment"),
                (".hip_fat", ".hip_fatbin"),
                (".hipFatB", ".hipFatBinSegment"),
            ),
        ),
    ),
    references=("Microsoft PE/COFF specification",),
)
