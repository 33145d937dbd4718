"""What a table of targets hides, in words: uneven coverage, and what there is for GPUs that are not listed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from fatpatch.api.inspection import TargetRow
from fatpatch.model.kinds import ImageKind, ModuleKind, Vendor
from fatpatch.model.target import Target
from fatpatch.model.tree import Payload

_MAX_GAPS = 8
_CATALOGUE = 20


def remarks(payloads: list[Payload], table: list[TargetRow]) -> Iterator[str]:
    """The remarks on the payloads of one place and their table."""
    if payloads[0].kind == ModuleKind.KPACK_REFERENCE:
        yield "no images here: the device code was split off into a kernel pack, a file of its own"
    elif payloads[0].vendor == Vendor.AMD:
        yield from _remarks_amd(payloads, table)
    elif payloads[0].vendor == Vendor.NVIDIA:
        yield from _remarks_nvidia(payloads, table)


def _remarks_nvidia(payloads: list[Payload], table: list[TargetRow]) -> Iterator[str]:
    total = len(payloads)
    sets = Counter(frozenset(image.target for image in payload.images) for payload in payloads)
    if total > _CATALOGUE and len(sets) > 1 and max(map(len, sets)) == 1:
        yield "one image a fatbin: each is a module of its own, so only --kernels shows what a target lacks"
    else:
        yield from _evenness(len(sets), total, table, "fatbins")
    ptx = [row.target for row in table if row.target.startswith("compute_")]
    lacking = sum(count for targets, count in sets.items() if targets.isdisjoint(ptx))
    if not ptx:
        yield "no PTX: nothing can be compiled at load time for a GPU that is not listed"
    elif lacking:
        yield f"PTX for {', '.join(ptx)}, but none in {lacking} of {total} fatbins"


def _remarks_amd(payloads: list[Payload], table: list[TargetRow]) -> Iterator[str]:
    """Code for an AMD GPU is for one processor alone, unless it is generic or SPIR-V."""
    bundles = [payload for payload in payloads if payload.kind == ModuleKind.OFFLOAD_BUNDLE]
    if len(bundles) == len(payloads):
        sets = Counter(frozenset(image.target for image in payload.images) for payload in bundles)
        yield from _evenness(len(sets), len(bundles), table, "bundles")
    kinds = {image.kind for payload in payloads for image in payload.images}
    if ImageKind.BITCODE in kinds:
        yield "LLVM bitcode: it becomes code when the program is linked (-fgpu-rdc), kernels are not read"
    if not any(Target(row.target).generic or row.target == "amdgcnspirv" for row in table) and ImageKind.HSACO in kinds:
        yield "no generic code and no SPIR-V: a GPU that is not listed loads nothing"


def _evenness(sets: int, total: int, table: list[TargetRow], unit: str) -> Iterator[str]:
    """Whether all modules of a place hold the same targets, and which lack some."""
    if total > 1 and sets == 1:
        yield f"all {total} {unit} contain the same targets"
    elif total > 1:
        rows = [row for row in table if row.payloads < total]
        yield f"uneven: {sets} different sets of targets in {total} {unit}"
        for row in rows[:_MAX_GAPS]:
            yield f"  {row.target} is missing in {total - row.payloads} of {total} {unit}"
        if len(rows) > _MAX_GAPS:
            yield f"  and {len(rows) - _MAX_GAPS} more targets are missing in some"
