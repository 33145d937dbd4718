"""Cubin: the ELF file that holds one module's SASS for one target."""

from __future__ import annotations

from construct import BitsInteger, BitStruct, Bytes, ByteSwapped, Flag, Int16ul, Int32ul, Padding, Struct

from fatpatch.formats._types import FormatDoc

FLAGS_OLD = ByteSwapped(
    BitStruct(
        Padding(8),
        "virtual_sm" / BitsInteger(8) * "SM number compiled for",
        Padding(4),
        "accelerated" / Flag * "arch-specific (a); only meaningful from sm_90 on",
        "wide_addresses" / Flag * "64-bit addresses",
        "texmode_independent" / Flag,
        "texmode_unified" / Flag,
        "sm" / BitsInteger(8) * "SM number",
    )
)

FLAGS_NEW = ByteSwapped(
    BitStruct(
        "layout" / BitsInteger(8) * "0x06",
        "sm" / BitsInteger(16) * "SM number",
        Padding(4),
        "accelerated" / Flag * "arch-specific (a), written by 12.8 and 12.9 only",
        Padding(3),
    )
)

NOTE = Struct(
    "name_size" / Int32ul * "12",
    "size" / Int32ul * "bytes of the description",
    "type" / Int32ul * "1000 cuinfo, 2000 tkinfo",
    "name" / Bytes(12) * "NVIDIA Corp and a NUL",
)

CUDA_INFO = Struct(
    "version" / Int16ul * "2",
    "virtual_sm" / Int16ul * "SM number compiled for",
    "toolkit" / Int32ul * "times ten: 130 is 13.0",
)

TOOLKIT_INFO = Struct(
    "version" / Int32ul * "2; in 12.9 the toolkit times ten",
    "object" / Int32ul * "offset of the object's name in the strings that follow",
    "tool" / Int32ul * "offset of the tool's name",
    "release" / Int32ul * "offset of the release text",
    "build" / Int32ul * "offset of the build text",
    "arguments" / Int32ul * "offset of the command line: the only place that names an f target",
)

DOC = FormatDoc(
    name="cubin",
    title="CUDA cubin",
    summary="ELF64 with machine 190. EI_OSABI tells which layout e_flags has: 0x33 old (to 12.9, below sm_100), 0x41 new.",
    layouts=(("note header", NOTE), (".note.nv.cuinfo", CUDA_INFO), (".note.nv.tkinfo", TOOLKIT_INFO)),
    values=(
        (
            "e_flags, OSABI 0x33",
            (("0-7", "SM number"), ("10", "64-bit addresses"), ("11", "arch-specific, from sm_90 on"), ("16-23", "virtual SM")),
        ),
        ("e_flags, OSABI 0x41", (("8-23", "SM number"), ("24-31", "0x06"), ("3", "arch-specific in 12.8 and 12.9"))),
        (
            "sections of a kernel",
            (
                (".text.K", "code; sh_info: symbol index, old layout: registers in the high byte"),
                (".nv.info.K", "records, see the format nvinfo"),
                (".nv.shared.K", "its size is the static shared memory"),
                (".nv.constant0.K", "parameters behind the reserved start"),
            ),
        ),
    ),
    notes=(
        "A kernel is a FUNC symbol whose st_other has bit 0x10.",
        "sm_90a and sm_90 differ in 13.x only by .nv.compat attribute 9; sm_100f only by the command line in .note.nv.tkinfo.",
    ),
    references=("compared with cuobjdump -res-usage on 10,575 kernels of CUDA 11.8 to 13.2",),
)
