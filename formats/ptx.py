"""PTX: text, not a structure; these are the directives that say what it is for."""

from __future__ import annotations

from fatpatch.formats._types import FormatDoc

DIRECTIVES = (
    (".version M.m", "PTX ISA; a driver that knows only older ones refuses the module (error 222)"),
    (".target sm_NN[a|f]", "the lowest device it can be compiled for; listed as compute_NN"),
    (".address_size 64", "pointer width"),
    (".entry name(...)", "a kernel"),
    (".param ...", "a parameter: natural alignment unless .align says more"),
    (".maxntid, .reqntid", "most, or exactly how many, threads a block has"),
)

DOC = FormatDoc(
    name="ptx",
    title="PTX",
    summary="Text with one NUL at its end. A driver compiles it at load time for devices that no cubin serves.",
    values=(("directives", DIRECTIVES),),
    notes=("Stored plain: zero padded to 8, the real length is up to the first NUL. Compressed: text and exactly one NUL.",),
    references=("PTX ISA, chapter 11",),
)
