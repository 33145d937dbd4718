"""AMD's .kpack: the device code that was split from a ROCm library, for one family of GPUs."""

from __future__ import annotations

from construct import Const, Int32ul, Int64ul, Struct

from fatpatch.formats import numbers as n
from fatpatch.formats._types import FormatDoc

HEADER = Struct(
    "magic" / Const(n.KPACK_MAGIC) * "KPAK",
    "version" / Int32ul * "1",
    "toc_offset" / Int64ul * "of the table of contents, a msgpack map that runs to the end of the file",
)

DOC = FormatDoc(
    name="kpack",
    title="ROCm kernel pack",
    summary="Code objects of several libraries; those hold a HIPK wrapper and a reference in .rocm_kpack_ref (PE: .kpackrf) instead.",
    layouts=(("header", HEADER),),
    values=(
        (
            "table of contents",
            (
                ("compression_scheme", "none, zstd-per-kernel"),
                ("blobs", "none: offset and size of each code object, by ordinal"),
                ("zstd_offset, zstd_size", "zstd-per-kernel: u32 count, then u32 size and a zstd frame for each ordinal"),
                ("toc", "library -> target -> {type, ordinal, original_size}"),
                ("group_name, gfx_arch_family, gfx_arches", "what was packed together"),
            ),
        ),
    ),
    notes=("The reference in the library is a msgpack map: kernel_name and kpack_search_paths, where @GFXARCH@ stands for the target.",),
    references=("ROCm, rocm-kpack",),
)
