"""Fatbin wrapper: the record by which host code hands a payload to the runtime."""

from __future__ import annotations

from construct import Int32ul, Int64ul, Struct

from fatpatch.formats._types import FormatDoc

WRAPPER = Struct(
    "magic" / Int32ul * "0x466243B1 CUDA, 0x48495046 HIP, 0x4B504948 HIP code in a sibling .kpack package",
    "version" / Int32ul * "1: compiled; 2: device-linked (RDC)",
    "payload" / Int64ul * "load address of the payload; relocated",
    "extra" / Int64ul * "version 1: 0 or the offline file name; version 2: array of prelinked fatbins",
)

DOC = FormatDoc(
    name="wrapper",
    title="fatbin wrapper",
    summary="24 bytes in .nvFatBinSegment (PE: .nvFatBi) or .hipFatBinSegment (PE: .hipFatB), one a module, in link order.",
    layouts=(("wrapper", WRAPPER),),
    notes=(
        "ELF: a R_*_RELATIVE relocation at +8; its addend and the stored bytes both hold the address.",
        "PE: an absolute address, image base included, with one DIR64 base relocation.",
    ),
    references=("CUDA toolkit, fatbinary_section.h", "LLVM, HIP offloading"),
)
