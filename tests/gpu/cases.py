"""The cases of the GPU run: what is done to what, how it is run, and the codes run_a and run_b must give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NO_IMAGE = (209, 209)  # cudaErrorNoKernelImageForDevice
NO_SYMBOL = (500, 500)  # cudaErrorSymbolNotFound: how a library built with -rdc=true says the same
WORKS = (0, 0)

CUBINS = ("--cubin", "a.sm_90.cubin", "--cubin", "b.sm_90.cubin")
TEXTS = ("--ptx", "a.compute_75.ptx", "--ptx", "b.compute_75.ptx")
DONOR = ("--from", "donor.so", "--target", "sm_90")
LINKED = ("--cubin", "linked.sm_90.cubin")
RELOCATABLE = ("--cubin", "a.rdc.sm_90.cubin", "--cubin", "b.rdc.sm_90.cubin")
OLD = ("--drop", "sm_75,sm_86")
WHEEL = "gpucase-1.0-py3-none-linux_x86_64.whl"


@dataclass(frozen=True)
class Case:
    """One file, one edit; file and options name what build.py wrote."""

    name: str
    file: str
    options: tuple[str, ...]
    runner: Literal["library", "program", "wheel"] = "library"
    before: tuple[int, int] = NO_IMAGE
    after: tuple[int, int] = WORKS
    beside: tuple[str, ...] = ()  # files that must lie in the same folder
    then: tuple[str, ...] = ()  # a second graft, into the result itself
    tool: tuple[str, ...] = ()  # a program that changes the edited file afterwards
    command: Literal["graft", "prune", "recompress"] = "graft"


CASES = (
    Case("static", "liba-static.so", CUBINS),
    Case("shared", "liba-shared.so", CUBINS, beside=("libcudart.so.13",)),
    Case("relr", "liba-relr.so", CUBINS),
    Case("nonote", "liba-nonote.so", CUBINS),  # no PT_NOTE to reuse: the program header table has to move
    Case("stripped", "liba-stripped.so", CUBINS),
    Case("pie", "program-pie", CUBINS, "program"),
    Case("nopie", "program-nopie", CUBINS, "program"),
    Case("static-ptx", "liba-static.so", TEXTS),
    Case("static-donor", "liba-static.so", DONOR),
    Case("wheel-donor", WHEEL, DONOR, "wheel"),
    Case("rdc-linked", "liba-rdc.so", LINKED, before=NO_SYMBOL),
    Case("rdc-relocatable", "liba-rdc.so", RELOCATABLE, before=NO_SYMBOL),
    Case("only-a", "liba-static.so", CUBINS[:2], after=(0, 209)),
    Case("static-cuobjdump", "liba-static.so", (*CUBINS, "--cuobjdump")),
    Case("twice", "liba-static.so", CUBINS[:2], then=CUBINS[2:]),
    Case("twice-pie", "program-pie", CUBINS[2:], "program", then=CUBINS[:2]),
    Case("strip", "liba-static.so", CUBINS, tool=("strip",)),
    Case("strip-program", "program-pie", CUBINS, "program", tool=("strip",)),
    Case("strip-cuobjdump", "liba-static.so", (*CUBINS, "--cuobjdump"), tool=("strip",)),
    Case("strip-twice", "liba-static.so", CUBINS[:2], then=CUBINS[2:], tool=("strip",)),
    Case("patchelf", "liba-static.so", CUBINS, tool=("patchelf", "--set-rpath", "$ORIGIN/elsewhere")),
    Case("zstd", "liba-static.so", (*CUBINS, "--compress", "zstd")),
    Case("lz4", "liba-static.so", (*CUBINS, "--compress", "lz4")),
    *(
        Case(f"prune-{name}", file, options, runner, before=WORKS, after=after, tool=tool, command="prune")
        for name, file, options, runner, after, tool in (
            ("static", "libfat-static.so", (*OLD, "--compact"), "library", WORKS, ()),
            ("zeros", "libfat-static.so", OLD, "library", WORKS, ()),
            ("for", "libfat-static.so", ("--for", "H100", "--compact"), "library", WORKS, ()),
            ("relr", "libfat-relr.so", (*OLD, "--compact"), "library", WORKS, ()),
            ("nonote", "libfat-nonote.so", (*OLD, "--compact"), "library", WORKS, ()),  # headers and code become one segment
            ("rdc", "libfat-rdc.so", (*OLD, "--compact"), "library", WORKS, ()),
            ("stripped", "libfat-stripped.so", (*OLD, "--compact"), "library", WORKS, ()),
            ("pie", "fat-pie", (*OLD, "--compact"), "program", WORKS, ()),
            ("nopie", "fat-nopie", (*OLD, "--compact"), "program", WORKS, ()),
            ("strip", "libfat-static.so", (*OLD, "--compact"), "library", WORKS, ("strip",)),
            ("strip-nonote", "libfat-nonote.so", (*OLD, "--compact"), "library", WORKS, ("strip",)),
            ("strip-program", "fat-pie", (*OLD, "--compact"), "program", WORKS, ("strip",)),
            ("patchelf", "libfat-static.so", (*OLD, "--compact"), "library", WORKS, ("patchelf", "--set-rpath", "$ORIGIN/elsewhere")),
            ("lost", "libfat-static.so", ("--drop", "sm_90", "--compact"), "library", NO_IMAGE, ()),
            ("lost-rdc", "libfat-rdc.so", ("--drop", "sm_90", "--compact"), "library", NO_SYMBOL, ()),
        )
    ),
    *(
        Case(f"recompress-{name}", file, options, runner, before=WORKS, command="recompress")
        for name, file, options, runner in (
            ("zstd", "libfat-static.so", ("--codec", "zstd", "--level", "19"), "library"),
            ("zstd-compact", "libfat-static.so", ("--codec", "zstd", "--level", "19", "--compact"), "library"),
            ("lz4-pie", "fat-pie", ("--codec", "lz4", "--compact"), "program"),
            ("zstd-rdc", "libfat-rdc.so", ("--codec", "zstd", "--compact"), "library"),
        )
    ),
    *(Case(f"retarget-{level}", f"libhigh-{level}.so", ("--retarget", "sm_90", "--allow", "unverified")) for level in (100, 120)),
    Case(
        "retarget-partly", "libpartly.so", ("--retarget", "sm_90", "--allow", "unverified"), after=(0, 719)
    ),  # the second kernel is a trap
)

# Built for sm_90 by nvcc itself: if one of these fails, the sources are wrong, not the graft.
CONTROLS = (Case("native", "donor.so", ()), Case("native-rdc", "donor-rdc.so", ()))
