"""Actually Portable Executable: a shell script, PE, ELF and zip in one file."""

from __future__ import annotations

from construct import Bytes, Int32ul, Struct

from fatpatch.formats._types import FormatDoc

PROLOGUE = Struct(
    "magic" / Bytes(8) * "MZqFpD=' or, not for Windows, jartsr=' (APEDBG=' for debugging)",
    "script" / Bytes(0x34) * "shell text",
    "pe_offset" / Int32ul * "offset of the PE signature",
)

DOC = FormatDoc(
    name="ape",
    title="Actually Portable Executable",
    summary="The shell script in the first 8192 bytes writes each architecture's 64-byte ELF header by printf, in octal.",
    layouts=(("prologue", PROLOGUE),),
    notes=(
        "Zip offsets count from byte 0 of the file.",
        "The runtime reads sizes and method from the local headers; a member with a data descriptor reads as empty there.",
        "A llamafile stores its libraries and weights uncompressed at multiples of 64 KiB.",
    ),
    references=("APE specification v0.1 (cosmopolitan)",),
)
