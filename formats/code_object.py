"""AMD code object: the ELF file that holds the instructions of one AMD processor."""

from __future__ import annotations

from construct import BitsInteger, BitStruct, Bytes, ByteSwapped, Int32ul, Struct

from fatpatch.formats._types import FormatDoc

FLAGS = ByteSwapped(
    BitStruct(
        "generic_version" / BitsInteger(8) * "version 6: of a generic target; else 0",
        "unused" / BitsInteger(12),
        "sramecc" / BitsInteger(2) * "0 cannot be set, 1 any, 2 off, 3 on (version 4 and later)",
        "xnack" / BitsInteger(2) * "the same",
        "mach" / BitsInteger(8) * "EF_AMDGPU_MACH: the processor",
    )
)

NOTE = Struct(
    "name_size" / Int32ul * "7",
    "size" / Int32ul * "bytes of the description",
    "type" / Int32ul * "32: metadata",
    "name" / Bytes(8) * "AMDGPU and NULs",
)

DOC = FormatDoc(
    name="code_object",
    title="AMD code object",
    summary="ELF64 with machine 224 and EI_OSABI 64 (HSA). EI_ABIVERSION plus 2 is the version: 2 to 6.",
    layouts=(("note header", NOTE),),
    values=(
        (
            "e_flags",
            (
                ("0-7", "the processor (0x36 gfx1030, 0x3f gfx90a, 0x53 gfx10-3-generic, ...)"),
                ("8-9", "xnack: 0 cannot be set, 1 any, 2 off, 3 on; version 3: bit 8 is on"),
                ("10-11", "sramecc: the same; version 3: bit 9 is on"),
                ("24-31", "version 6: version of the generic target"),
            ),
        ),
        (
            "metadata (msgpack)",
            (
                ("amdhsa.target", "amdgcn-amd-amdhsa--gfx90a:xnack+"),
                ("amdhsa.kernels", "for each kernel .name, .symbol, .vgpr_count, .sgpr_count, .agpr_count, spills, sizes, .args"),
            ),
        ),
    ),
    notes=("A kernel NAME is found through the symbol NAME.kd, its kernel descriptor in .rodata.",),
    references=("LLVM, User Guide for AMDGPU Backend", "53 objects of clang 22 read back"),
)
