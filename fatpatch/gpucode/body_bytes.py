"""The code of each kernel of an image as bytes, to tell which kernels two builds have in common."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.gpucode.code_object.read import functions
from fatpatch.gpucode.cubin.bodies import kernel_sections
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.ptx.bodies import definitions
from fatpatch.model.kinds import ImageKind


def kernel_code(kind: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """(kernel name, its machine code or the text of its body) in an unpacked cubin, code object or PTX; nothing for other kinds.

    FormatError when the image is damaged.
    """
    if kind == ImageKind.SASS:
        tables = Tables(data)
        yield from ((name, bytes(tables.content(tables.rows[index]))) for name, index in kernel_sections(tables).items())
    elif kind == ImageKind.HSACO:
        yield from functions(data)
    elif kind == ImageKind.PTX:
        entries = (each for each in definitions(data) if each.entry and each.start >= 0)
        yield from ((each.name.decode("ascii", "backslashreplace"), data[each.start : each.end]) for each in entries)
