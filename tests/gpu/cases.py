"""The cases of the GPU run: what is grafted into what, how it is run, and the codes run_a and run_b must give."""

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
WHEEL = "gpucase-1.0-py3-none-linux_x86_64.whl"


@dataclass(frozen=True)
class Case:
    """One file, one graft; file and options name what build.py wrote."""

    name: str
    file: str
    options: tuple[str, ...]
    runner: Literal["library", "program", "wheel"] = "library"
    before: tuple[int, int] = NO_IMAGE
    after: tuple[int, int] = WORKS
    beside: tuple[str, ...] = ()  # files that must lie in the same folder
    then: tuple[str, ...] = ()  # a second graft, into the result itself
    tool: tuple[str, ...] = ()  # a program that changes the grafted file afterwards


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
)

# Built for sm_90 by nvcc itself: if one of these fails, the sources are wrong, not the graft.
CONTROLS = (Case("native", "donor.so", ()), Case("native-rdc", "donor-rdc.so", ()))
