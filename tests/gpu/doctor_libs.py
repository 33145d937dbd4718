"""Fifty libraries that mix the load rules: the entries of every module, and the image each kernel is expected to get.

The rules are read from measurements of one driver (580.159.04) on an H100; `outcome` is a second, separate reading of them, kept apart from
fatpatch on purpose. An outcome that those measurements do not cover is marked as a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

PTX, ELF, TEXT_CUBIN, LTO, OLD_INDEX, INDEX, RELOC_PTX, TILE, CONCAT = 1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x100
SUFFIX_A, SUFFIX_F, MERCURY = 0x100000, 0x200000, 0x1000000
NO_IMAGE, BAD_IMAGE, BAD_SOURCE, BAD_PTX, NEW_PTX, NO_JIT, NO_NAME, TRAPPED, UNKNOWN, BAD_HANDLE = (
    209,
    200,
    300,
    218,
    222,
    223,
    500,
    719,
    999,
    400,
)
DEVICE = 90
UNKNOWN_ARCHS = {1, 9, 91, 95, 200, 900}
Codec = Literal["raw", "zlib", "lz4", "lz4-frame", "zstd"]


@dataclass(frozen=True)
class Entry:
    """One entry of a fatbin: how its image is made, how it is labelled, and what loading it gives when it is chosen."""

    kind: int
    target: str = ""  # what it is compiled for: "75", "90a", "100f"; empty: `payload` is used
    codec: Codec = "raw"
    tool: str = "13"  # 13: nvcc and ptxas 13.0; 12: NVRTC and ptxas 12.9
    label: int | None = None  # arch of the header; None: the target's
    flags: int | None = None  # None: 64-bit, Linux and the target's suffix
    version: str = ""  # .version of the PTX text, edited
    edits: tuple[str, ...] = ()  # names of changes: see doctor_build.edit and doctor_build.encode
    defines: tuple[str, ...] = ()
    options: bytes = b""
    payload: bytes = b""
    sass: bool = False  # the image is a cubin
    inner: tuple[Entry, ...] = ()  # of a concatenated entry
    fails: int | str | None = None  # code, "crash" or "hang" when this entry is chosen
    lacks: frozenset[str] = field(default_factory=frozenset)  # kernels that are not in it
    kernels: dict[str, dict[str, int]] = field(default_factory=dict)  # call -> what differs from a plain success

    @property
    def arch(self) -> int:
        """The architecture the header names."""
        if self.label is not None:
            return self.label
        return int(re.match(r"\d*", self.target)[0] or 0)  # type: ignore[index]

    @property
    def bits(self) -> int:
        """The flags of the header, codec left out."""
        if self.flags is not None:
            return self.flags
        return 0x11 | (SUFFIX_A if self.target.endswith("a") else 0) | (SUFFIX_F if self.target.endswith("f") else 0)


def s(target: str, codec: Codec = "raw", **fields: object) -> Entry:
    """SASS."""
    return Entry(ELF, target, codec, sass=True, **fields)  # type: ignore[arg-type]


def p(target: str, codec: Codec = "raw", **fields: object) -> Entry:
    """PTX; compute_52 comes from 12.9, since 13.0 starts at 75."""
    fields.setdefault("tool", "12" if int(re.match(r"\d+", target)[0]) < 75 else "13")  # type: ignore[index]
    return Entry(PTX, target, codec, **fields)  # type: ignore[arg-type]


def other(kind: int, arch: int = 0, payload: bytes = b"\xab" * 64, **fields: object) -> Entry:
    """An entry that holds junk."""
    return Entry(kind, label=arch, payload=payload, **fields)  # type: ignore[arg-type]


def holds(kind: int, entry: Entry, **fields: object) -> Entry:
    """The image of an entry under another kind."""
    return replace(entry, kind=kind, **fields)  # type: ignore[arg-type]


def concat(*inner: Entry) -> Entry:
    """The concatenated entries that nvFatbin 13.5 makes of some images."""
    return Entry(CONCAT, inner=inner, tool="13.5")


@dataclass(frozen=True)
class Module:
    """One fatbin and the source whose kernels it serves."""

    entries: tuple[Entry, ...]
    source: Literal["plain", "same", "stub", "rdc"] = "plain"
    container: str = ""  # a change to the container: see doctor_build.contain
    maker: str = "own"  # own, or the arguments of NVIDIA's fatbinary
    fails: int | str | None = None  # the whole module, whatever it holds
    seen: int | None = None  # the driver reads only this many entries
    calls: tuple[str, ...] = ("a", "b")
    eager: int | None = None  # under EAGER, every call gives this code


@dataclass(frozen=True)
class Library:
    """One shared object."""

    words: str
    modules: tuple[Module, ...]
    host: Literal["nvcc", "nvcc-dlink", "c"] = "nvcc"
    cudart: Literal["13-static", "13-shared", "12-static", "12-shared"] = "13-static"
    alone: bool = False  # every call in a process of its own
    environments: tuple[str, ...] = ("default", "force", "disable", "eager")
    shared_stub: bool = False  # the kernel template has one host stub for all modules


ENVIRONMENTS: dict[str, dict[str, str]] = {
    "default": {},
    "force": {"CUDA_FORCE_PTX_JIT": "1"},
    "disable": {"CUDA_DISABLE_PTX_JIT": "1"},
    "eager": {"CUDA_MODULE_LOADING": "EAGER"},
    "force-other-name": {"CUDA_FORCE_JIT": "1"},
    "disable-other-name": {"CUDA_DISABLE_JIT": "1"},
    "zero": {"CUDA_FORCE_PTX_JIT": "0", "CUDA_DISABLE_PTX_JIT": "0"},
    "force-disable": {"CUDA_FORCE_PTX_JIT": "1", "CUDA_DISABLE_PTX_JIT": "1"},
    "force-eager": {"CUDA_FORCE_PTX_JIT": "1", "CUDA_MODULE_LOADING": "EAGER"},
}
MORE = ("default", "force", "disable", "eager", "force-other-name", "disable-other-name", "zero", "force-disable", "force-eager")


class Outcome(NamedTuple):
    """What loading a module gives: the chosen entry, if any, and the code; guess: not covered by the measurements."""

    entry: Entry | None
    code: int | str
    guess: bool = False


def visible(entry: Entry) -> bool:
    """Whether the driver for this device takes the entry into account at all."""
    return entry.arch not in UNKNOWN_ARCHS and not (entry.bits & SUFFIX_F and not entry.bits & SUFFIX_A and entry.arch < 100)


def ranked_sass(entries: Sequence[Entry]) -> Entry | None:
    """a before plain, without the Mercury flag before with it, then the first."""
    rows = [entry for entry in entries if entry.kind == ELF and entry.arch == DEVICE and visible(entry)]
    return min(rows, key=lambda entry: (not entry.bits & SUFFIX_A, bool(entry.bits & MERCURY)), default=None)


def ranked_ptx(entries: Sequence[Entry]) -> Entry | None:
    """Highest arch; at the device's own arch the first with a, else the last; below it the first."""
    rows = [entry for entry in entries if entry.kind == PTX and entry.arch <= DEVICE and visible(entry)]
    top = max((entry.arch for entry in rows), default=0)
    rows = [entry for entry in rows if entry.arch == top]
    if not rows or top < DEVICE:
        return rows[0] if rows else None
    special = [entry for entry in rows if entry.bits & SUFFIX_A]
    return special[0] if special else rows[-1]


def nothing_usual(entries: Sequence[Entry], disabled: bool, guess: bool) -> Outcome:
    """What comes when there is neither SASS nor PTX."""
    texts = [entry for entry in entries if entry.kind == RELOC_PTX and entry.arch <= DEVICE and entry.arch]
    if len(texts) > 1:
        return Outcome(None, NO_JIT if disabled else BAD_SOURCE, guess or disabled)
    if texts:
        if texts[0].fails is None and disabled:
            return Outcome(None, NO_JIT, True)
        return Outcome(texts[0], texts[0].fails or 0, guess or disabled)
    codes = [entry.fails for entry in entries if entry.kind == LTO and entry.fails is not None]
    if codes:
        return Outcome(None, codes[0], guess)
    if any(entry.kind == INDEX for entry in entries):
        return Outcome(None, UNKNOWN, guess)
    return Outcome(None, NO_IMAGE, False)


def expected(library: Library, number: int, call: str, environment: str) -> tuple[dict[str, object], Entry | None]:
    """What one call is expected to give, and the entry whose mark it writes: end, or launch, sync and mark (-1: nothing written)."""
    module = library.modules[0 if library.shared_stub else number]
    entry, code, guess = outcome(module, environment)
    answer: dict[str, object] = {"guess": True} if guess else {}
    if isinstance(code, str):
        return {"end": code, **answer}, None
    if code == NO_IMAGE and "eager" in environment and library.cudart.startswith("12"):
        code = BAD_HANDLE
    if not code and "eager" in environment and module.eager and entry in module.entries[:1]:
        code = module.eager
    if not code and entry and call.split(":")[0] in entry.lacks:
        code = NO_NAME
    if code or not entry:
        return {"launch": code, **answer}, None
    special = entry.kernels.get(call, entry.kernels.get(call.split(":")[0], {}))
    if special.get("launch"):
        return {"launch": special["launch"], **answer}, None
    if special.get("sync"):
        return {"launch": 0, "sync": special["sync"], **answer}, None
    return {"launch": 0, "sync": 0, **answer, **special}, None if "mark" in special else entry


def outcome(module: Module, environment: str) -> Outcome:
    """What the driver makes of a module."""
    force, disabled = environment.startswith("force"), "disable" in environment
    if module.fails is not None:
        return Outcome(None, module.fails, False)
    entries = module.entries if module.seen is None else module.entries[: module.seen]
    if any(entry.kind in (PTX, ELF, LTO, OLD_INDEX) and entry.arch in (0, 0xFFFFFFFF) for entry in entries):
        return Outcome(None, UNKNOWN, False)
    chosen = None if force else ranked_sass(entries)
    if chosen:
        return Outcome(chosen, chosen.fails or 0, False)
    if any(entry.kind == OLD_INDEX and entry.arch == DEVICE for entry in entries):
        return Outcome(None, UNKNOWN, environment != "default")
    chosen = ranked_ptx(entries)
    if not chosen:
        return nothing_usual(entries, disabled, force or disabled)
    if disabled:
        return Outcome(None, NO_JIT, chosen.fails is not None or chosen.codec != "raw" or force)
    return Outcome(chosen, chosen.fails or 0, force and chosen.fails is not None)


def one(*entries: Entry, **fields: object) -> Module:
    """A module."""
    return Module(entries, **fields)  # type: ignore[arg-type]


def library(words: str, *modules: Module, **fields: object) -> Library:
    """A library."""
    return Library(words, modules, **fields)  # type: ignore[arg-type]


A_FLAG, F_FLAG, AF_FLAGS, MERC, A_MERC = (
    0x11 | SUFFIX_A,
    0x11 | SUFFIX_F,
    0x11 | SUFFIX_A | SUFFIX_F,
    0x11 | MERCURY,
    0x11 | SUFFIX_A | MERCURY,
)
FILLER_0 = other(0, payload=b"")
FILLER_X = other(0x7777, payload=bytes(256))
NEW_91 = {"version": "9.1", "fails": NEW_PTX}
NO_B = {"defines": ("WITHOUT_B",), "lacks": frozenset("b")}


def broken(entry: Entry) -> Entry:
    """The entry with a damaged payload: compressed bytes, cubin head or PTX text."""
    if entry.codec == "raw":
        return replace(entry, edits=("damage",), fails=BAD_IMAGE if entry.kind == ELF else BAD_PTX)
    lz4 = entry.codec in ("lz4", "lz4-frame")
    return replace(entry, edits=("damage",), fails=("crash" if entry.kind == PTX else NO_IMAGE) if lz4 else UNKNOWN)


def stub(target: str, codec: Codec = "raw", below: int = 9999, **fields: object) -> Entry:
    """An image of doctor_stub.cu without bodies (below: MINARCH; 0 gives all bodies)."""
    quiet = {"mark": -1}
    trap = {"sync": TRAPPED}
    lost = {"loud": trap, "quiet": trap, "nothing": quiet, "early:1": trap, "early:0": quiet, "loop:1": trap, "guard:2000": trap}
    whole = {"early:0": quiet, "guard:2000": trap}
    kind = fields.pop("kind", ELF)
    make = s if kind == ELF else p
    return make(target, codec, defines=(f"MINARCH={below}",), kernels=lost if below else whole, **fields)


STUB_CALLS = ("loud", "quiet", "nothing", "early:1", "early:0", "loop:1", "loop:0", "guard:1", "guard:2000")

LIBRARIES: tuple[Library, ...] = (
    library(
        "exact SASS among four archs; highest PTX of three codecs; PTX 90 beside SASS 100",
        one(s("75"), s("80"), s("90"), s("100", flags=MERC)),
        one(p("52", "lz4"), p("75", "zstd"), p("80")),
        one(s("100", "zstd", flags=MERC), p("90", "lz4")),
        host="nvcc-dlink",
        environments=MORE,
    ),
    library(
        "SASS ties: the first of three codecs, and toolkit 12.9 before and after 13.0",
        one(s("90", "zstd"), s("90"), s("90", "lz4")),
        one(s("90", "lz4-frame", tool="12"), s("90"), p("90")),
        one(s("90", "zlib"), s("90", tool="12"), p("52")),
    ),
    library(
        "PTX ties: the last of three at 90, the first of equals at 75 and 80",
        one(p("90"), p("90", "zstd"), p("90", "lz4")),
        one(p("75", "zstd"), p("75", tool="12"), p("52")),
        one(p("80", "lz4"), p("75"), p("80")),
        cudart="13-shared",
    ),
    library(
        "PTX with the a flag: no weight at 80 and 89, the first a at 90",
        one(p("80"), p("80", flags=A_FLAG)),
        one(p("90"), p("90a"), p("90a", "zstd"), p("90")),
        one(p("75"), p("89"), p("89", "zlib", flags=A_FLAG), s("89")),
        host="c",
    ),
    library(
        "SASS 90a before 90 whatever the order; the Mercury flag loses against none but not against missing a",
        one(s("90"), s("90a", "zstd")),
        one(s("90", flags=MERC), s("90", "lz4"), s("90", flags=MERC)),
        one(s("90a", flags=A_MERC), s("90"), s("90a"), p("90a")),
        environments=MORE,
    ),
    library(
        "Mercury flag: first of two with it; 90a with it before plain 90; codec no weight",
        one(s("90", flags=MERC), s("90", "zstd", flags=MERC), p("75", "zstd")),
        one(s("90"), s("90a", "lz4", flags=A_MERC)),
        one(s("90", "zlib"), s("90", flags=MERC), s("90")),
        cudart="12-static",
    ),
    library(
        "the f flag below 100 hides SASS and PTX; another label does not help",
        one(s("90", flags=F_FLAG), p("75")),
        one(p("90", flags=F_FLAG), p("80", flags=F_FLAG), p("75", "zstd"), p("75")),
        one(s("90", flags=F_FLAG)),
    ),
    library(
        "f together with a counts as a; hidden SASS twice falls to the first PTX 52",
        one(s("90"), s("90a", flags=AF_FLAGS)),
        one(p("90"), p("90a", flags=AF_FLAGS), p("90a"), p("90")),
        one(s("90", flags=F_FLAG), s("90", "zstd", flags=F_FLAG), p("52", "lz4"), p("52")),
        host="nvcc-dlink",
    ),
    library(
        "unknown numbers are skipped, for SASS and PTX",
        one(s("90", label=91), s("90", label=200), s("90", "lz4")),
        one(p("90", label=95), p("75", label=1), p("75"), p("52", label=9)),
        one(s("90", label=900), s("80"), p("100", label=91)),
    ),
    library(
        "arch 0 in a SASS entry after a good one ends the module, in other kinds it is harmless; the neighbours live",
        one(s("90"), other(ELF)),
        one(other(RELOC_PTX), p("75"), other(INDEX)),
        one(FILLER_0, other(TILE), other(CONCAT), s("90", "zstd")),
    ),
    library(
        "arch 0xFFFFFFFF in an unusable PTX entry, arch 0 in LTO-IR, and a healthy third module",
        one(p("75"), s("90"), p("90", label=0xFFFFFFFF)),
        one(other(LTO), s("90"), p("90")),
        one(s("90a"), s("90")),
        cudart="13-shared",
    ),
    library(
        "SASS labels: 90 labelled 75 is not seen, 75 and 80 labelled 90 are chosen and fail",
        one(s("90", label=75), p("52", "zstd")),
        one(s("75", label=90, fails=BAD_SOURCE), p("75")),
        one(s("80", "zstd", label=90, fails=BAD_SOURCE), s("90")),
    ),
    library(
        "PTX labels: 90 as 75 runs, 100 as 90 fails, 75 and 80 as 90 are equals of 90",
        one(p("90", label=75), p("52"), s("80")),
        one(p("100", label=90, fails=BAD_PTX), p("75")),
        one(p("75", label=90), p("90", "zstd"), p("80", label=90)),
        host="c",
    ),
    library(
        "PTX labels below 90: 120 as 75 hides two good 52, 52 as 89 wins, 90a as 80 without its flag runs",
        one(p("120", label=75, flags=0x11, fails=BAD_PTX), p("52"), p("52")),
        one(p("80"), p("52", label=89), p("75")),
        one(p("90a", "lz4", label=80, flags=0x11), p("75", flags=A_FLAG)),
    ),
    library(
        "PTX newer than the driver: higher arch chosen, second of equals at 75 not chosen, first at 90 not chosen",
        one(p("90", **NEW_91), p("75")),
        one(p("75"), p("75", **NEW_91)),
        one(p("90", "zstd", **NEW_91), p("90", tool="12")),
        environments=MORE,
    ),
    library(
        "PTX newer than the driver, first of equals at 75; beside SASS; a version that never was",
        one(p("75", **NEW_91), p("75")),
        one(s("90"), p("90", version="9.2", fails=NEW_PTX)),
        one(p("90", "lz4"), p("90", "zstd", version="8.9", fails=NEW_PTX)),
    ),
    library(
        "old PTX: .version 7.8 of 12.9, .target sm_30 with 6.0, version 9.1 for a GPU that is not there",
        one(s("75"), p("52", "zstd", version="7.8"), s("100", flags=MERC)),
        one(p("52", label=30, version="6.0", edits=("target sm_30",))),
        one(p("100", version="9.1"), p("80", tool="12", version="7.8"), p("52")),
        cudart="12-shared",
    ),
    library(
        ".target: two names count as the higher, a suffix that does not exist, .target debug",
        one(p("75", edits=("target sm_75, sm_80",)), p("52")),
        one(p("80", edits=("target sm_80a",), fails=BAD_PTX), p("75")),
        one(p("90", edits=("target sm_90, debug",), fails=BAD_PTX), s("90", label=75)),
    ),
    library(
        "all five codecs, right and wrong archs between",
        one(s("80", "zstd"), s("90", "zlib"), p("75", "zlib")),
        one(p("75", "lz4-frame"), p("75", "lz4"), p("52", "zstd")),
        one(p("75"), s("90", "zstd", edits=("zstd two frames",)), s("86", "lz4-frame")),
        host="nvcc-dlink",
    ),
    library(
        "zlib without a byte of padding chosen and not chosen; garbage within a zstd entry's compressed size",
        one(p("90", "zlib", edits=("no padding",), fails=UNKNOWN), s("100", flags=MERC)),
        one(p("75", "zlib", edits=("no padding",), fails=UNKNOWN), p("80", "zlib")),
        one(s("90", "zstd", edits=("zstd garbage",), fails=UNKNOWN), p("90")),
    ),
    library(
        "damaged zstd: chosen first of equals, second of equals, first of equal PTX 90",
        one(broken(s("90", "zstd")), p("75"), s("90")),
        one(s("90"), broken(s("90", "zstd")), p("80", "zstd")),
        one(broken(p("90", "zstd")), p("90")),
        environments=MORE,
    ),
    library(
        "damaged LZ4 block: SASS chosen, SASS second, PTX of a lower arch",
        one(broken(s("90", "lz4")), p("75")),
        one(p("75", "lz4"), s("90", "lz4"), broken(s("90", "lz4"))),
        one(broken(p("75", "lz4")), p("80")),
        cudart="12-static",
    ),
    library(
        "damaged zlib: SASS chosen beside PTX, first and last of equal PTX 90",
        one(broken(s("90", "zlib")), p("90")),
        one(broken(p("90", "zlib")), p("90", "zstd")),
        one(p("90"), broken(p("90", "zlib"))),
        host="c",
    ),
    library(
        "damaged LZ4 frame: SASS chosen beside a good equal, another arch; damaged zstd PTX second at 75",
        one(broken(s("90", "lz4-frame")), s("90")),
        one(broken(s("75", "lz4-frame")), p("75", "lz4-frame")),
        one(p("75", "zstd"), broken(p("75", "zstd"))),
    ),
    library(
        "damaged and not compressed: cubin head, PTX text, each with a good one beside",
        one(broken(s("90")), p("75")),
        one(s("90"), broken(s("90")), broken(p("75"))),
        one(p("80"), broken(p("80")), broken(p("75"))),
        environments=MORE,
    ),
    library(
        "PTX text broken and last of equals at 90; wrong sizes: zstd, LZ4, ignored on a raw entry",
        one(p("90"), broken(p("90")), s("75")),
        one(s("90", "zstd", edits=("usize+1",), fails=UNKNOWN), p("75")),
        one(s("90", edits=("sizes of nothing",)), s("90", "lz4", edits=("usize+8",), fails=NO_IMAGE)),
    ),
    library(
        "an LZ4 entry with a wrong size gives no image; filler entries of kind 0 and 0x7777",
        one(s("90", "lz4", edits=("usize+8",), fails=NO_IMAGE), s("90")),
        one(FILLER_0, s("90"), FILLER_X),
        one(p("75"), FILLER_X, p("75"), FILLER_0),
        cudart="13-shared",
    ),
    library(
        "only filler; filler with a reloc PTX; filler between hidden SASS and PTX",
        one(FILLER_0, FILLER_X),
        one(FILLER_X, holds(RELOC_PTX, p("80"))),
        one(s("90", flags=F_FLAG), FILLER_0, p("52", "zstd"), FILLER_X),
    ),
    library(
        "concatenated entries: alone, beside PTX, beside SASS",
        one(concat(s("90"), p("75"))),
        one(concat(s("90")), p("75"), concat(p("90"))),
        one(concat(s("90"), s("80"), p("90")), s("90", "zstd")),
    ),
    library(
        "LTO-IR alone, beside SASS, with a hidden SASS and beside SASS 80",
        one(Entry(LTO, "90")),
        one(Entry(LTO, "90"), s("90")),
        one(Entry(LTO, "90"), s("80"), s("90", flags=F_FLAG)),
        host="nvcc-dlink",
    ),
    library(
        "LTO-IR beside PTX: 75 twice, and 52 with SASS 80; LTO-IR beside a concatenated entry",
        one(Entry(LTO, "75"), p("75", "zstd"), p("75")),
        one(Entry(LTO, "80"), p("52"), s("80")),
        one(concat(s("90")), Entry(LTO, "90")),
    ),
    library(
        "relocatable PTX entry: alone, beside PTX of a lower arch, beside SASS of another arch",
        one(holds(RELOC_PTX, p("75"))),
        one(holds(RELOC_PTX, p("80")), p("52")),
        one(s("80"), holds(RELOC_PTX, p("75")), FILLER_X),
    ),
    library(
        "relocatable PTX entries: two are linked, a cubin in one, one beside SASS",
        one(holds(RELOC_PTX, p("75")), holds(RELOC_PTX, p("80"))),
        one(holds(RELOC_PTX, s("90"), fails=NO_IMAGE)),
        one(holds(RELOC_PTX, p("90")), s("90", "lz4")),
        cudart="12-static",
    ),
    library(
        "kind 0x10 of the device beside SASS and beside PTX, and of another arch",
        one(other(OLD_INDEX, 90), s("90")),
        one(other(OLD_INDEX, 90), p("75")),
        one(other(OLD_INDEX, 80), p("75"), p("75", "zstd")),
    ),
    library(
        "index entry beside PTX, beside SASS of another arch, beside SASS",
        one(other(INDEX), p("75")),
        one(other(INDEX, 90), s("80")),
        one(other(INDEX, 90), s("90"), p("90", **NEW_91)),
    ),
    library(
        "kinds 3, 4, 0x80, 0x200, 0x400: ignored, even with a good cubin in them",
        one(holds(TEXT_CUBIN, s("90"))),
        one(other(TILE, 80), other(3, 90), p("80", "zstd")),
        one(other(0x200, 90), holds(0x400, s("90")), s("90"), s("90", "zstd")),
        host="c",
    ),
    library(
        "container: size ends before the SASS, trailing garbage after it, a second container behind the first",
        one(p("75"), s("90"), container="size without the last", seen=1),
        one(s("90"), s("80"), container="garbage behind"),
        one(p("52"), s("90"), container="two containers", seen=1),
    ),
    library(
        "container: version 2, a longer header, a size that cuts into the last entry",
        one(s("90"), p("75"), container="version 2", fails=BAD_IMAGE),
        one(p("75"), s("90", "zstd"), container="header 24"),
        one(s("80"), s("90"), container="size cuts the last"),
    ),
    library(
        "flags that do not rank: windows host, debug, 32-bit, OpenCL, an identifier",
        one(s("90", flags=0x41), s("90")),
        one(s("90", "zstd", flags=0x13, edits=("identifier",)), s("90", flags=0x10)),
        one(p("90", flags=0x10), p("90", flags=0x19), s("90", flags=F_FLAG)),
        cudart="13-shared",
    ),
    library(
        "the chosen image lacks a kernel that another one has: SASS, second SASS, last PTX",
        one(s("90", **NO_B), p("75"), s("90")),
        one(s("90"), s("90", **NO_B), p("80", **NO_B)),
        one(p("90"), p("90", "zstd", **NO_B)),
        environments=MORE,
    ),
    library(
        "one kernel name in three modules with a host stub each: independent",
        one(s("90"), source="same", calls=("same",)),
        one(p("75", "zstd"), s("80"), p("75"), source="same", calls=("same",)),
        one(s("75", "lz4"), source="same", calls=("same",)),
    ),
    library(
        "one host stub registered by two modules: the first wins though its SASS lacks the kernel, which forced JIT finds in its PTX",
        one(s("90", defines=("WITHOUT_SAME",), lacks=frozenset({"same"})), p("75"), source="same", calls=("same",)),
        one(s("90", "zstd"), source="same", calls=("same",)),
        shared_stub=True,
    ),
    library(
        "one host stub registered by three modules, of which the first has no image",
        one(s("75"), source="same", calls=("same",)),
        one(s("90"), source="same", calls=("same",)),
        one(s("90a", "zstd"), p("90"), source="same", calls=("same",)),
        shared_stub=True,
        host="nvcc-dlink",
    ),
    library(
        "relocatable cubins that nobody links: own function, own data, a function that is missing",
        one(s("90", edits=("rdc",)), source="rdc", calls=("inside",)),
        one(
            s("90", "zstd", edits=("rdc",), defines=("WITH_DATA",), kernels={"data": {"launch": BAD_IMAGE}}),
            source="rdc",
            calls=("inside", "data"),
            eager=BAD_IMAGE,
        ),
        one(
            s("90", edits=("rdc",), defines=("WITH_OUTSIDE",), kernels={"outside": {"launch": NO_NAME}}),
            source="rdc",
            calls=("inside", "outside"),
            eager=NO_NAME,
        ),
    ),
    library(
        "relocatable PTX: complete, with a missing function, and as it is stored with --compile-only",
        one(p("75", edits=("rdc",)), s("80", edits=("rdc",)), source="rdc", calls=("inside",)),
        one(p("90", edits=("rdc",), defines=("WITH_OUTSIDE",), fails=BAD_PTX), source="rdc", calls=("inside", "outside")),
        one(
            p(
                "80",
                "zstd",
                edits=("rdc",),
                defines=("WITH_OUTSIDE",),
                options=b"--compile-only  ",
                kernels={"outside": {"launch": NO_NAME}},
            ),
            source="rdc",
            calls=("inside", "outside"),
            eager=NO_NAME,
        ),
    ),
    library(
        "stubs in the SASS that wins over complete PTX; stubs in the first and in the second of two SASS",
        one(stub("90"), stub("80", below=0, kind=PTX), source="stub", calls=STUB_CALLS),
        one(stub("90", "zstd", below=0), stub("90"), source="stub", calls=("loud", "nothing", "early:1", "guard:1")),
        one(
            stub("52", kind=PTX, below=610),
            stub("80", below=610),
            source="stub",
            calls=("loud", "quiet", "nothing", "loop:0", "guard:2000"),
        ),
        alone=True,
        environments=("default", "force", "eager"),
    ),
    library(
        "JIT options and text forms: an unknown option not chosen, another arch, CRLF, no .address_size, stored text",
        one(p("75", options=b"--bogus", fails=BAD_PTX), s("90")),
        one(p("90", options=b"-arch=sm_80", fails=BAD_PTX), p("75")),
        one(s("75"), p("90"), p("90", edits=("no address size", "crlf", "text after the end"), options=b"-O0 -lineinfo")),
    ),
    library(
        "NVIDIA's fatbinary 13.0: zstd with all kinds of target, LZ4, none; 32-bit PTX chosen beside 64-bit",
        one(s("75"), s("80"), s("90a"), s("90"), s("120", flags=MERC), p("90"), maker="-compress-all"),
        one(s("86"), p("75"), p("80"), maker="-compress-mode=speed"),
        one(p("80", edits=("address size 32",), flags=0x10, fails=BAD_PTX), p("75")),
    ),
    library(
        "crashes: an LZ4 PTX that does not decompress, a PTX without options; beside SASS neither matters",
        one(broken(p("75", "lz4")), p("52"), calls=("a",)),
        one(p("80", edits=("no options",), fails="crash"), s("75"), calls=("a",)),
        one(s("90"), broken(p("90", "lz4")), p("75", edits=("no options",))),
        alone=True,
        environments=("default", "disable"),
    ),
    library(
        "a hang: zero bytes between two entries; as a filler entry the same bytes are harmless",
        one(s("90"), p("75"), container="zeros between", fails="hang", calls=("a",)),
        one(s("90"), FILLER_X, p("75"), container="odd stored sizes"),
        alone=True,
        environments=("default",),
    ),
)
