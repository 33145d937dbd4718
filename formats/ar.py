"""Ar archives."""

from __future__ import annotations

from construct import Bytes, Const, Struct

from fatpatch.formats._types import FormatDoc

MEMBER = Struct(
    "name" / Bytes(16) * "name/ (GNU), #1/LENGTH (BSD), /OFFSET into the // member, / and /SYM64/ are indexes",
    "time" / Bytes(12) * "decimal",
    "owner" / Bytes(6) * "decimal",
    "group" / Bytes(6) * "decimal",
    "mode" / Bytes(8) * "octal",
    "size" / Bytes(10) * "decimal bytes; the next member starts at an even offset",
    "end" / Const(b"`\n") * "60 0a",
)

DOC = FormatDoc(
    name="ar",
    title="ar archive",
    summary="Unix .a and Windows .lib: `!<arch>` and a newline, then members.",
    layouts=(("member header", MEMBER),),
    references=("ar(5)", "Microsoft PE/COFF specification, archive format"),
)
