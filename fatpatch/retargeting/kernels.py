"""The five verdicts on a kernel whose PTX was made for another GPU (reference: stubs, section C), computed, never assumed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.gpucode import flow
from fatpatch.gpucode.cubin.launch_bounds import Bounds
from fatpatch.gpucode.rows import KernelFacts, own_shared
from fatpatch.gpucode.signature import same_parameters
from fatpatch.retargeting.cautions import cautions
from fatpatch.retargeting.rewrites import Rewrite
from fatpatch.retargeting.text import Text

IDENTICAL: Final = 1
UNCHANGED: Final = 2
DIFFERENT: Final = 3
STUB: Final = 4
REJECTED: Final = 5
WORDS: Final = {
    IDENTICAL: "identical code in PTX for another target",
    UNCHANGED: "compiles, launch shape unchanged",
    DIFFERENT: "launch shape differs or is unknown",
    STUB: "the source body is a stub",
    REJECTED: "rejected by ptxas",
}
_NOTHING_INSIDE = flow.STUBS | {flow.EMPTY, flow.CALL_ONLY}


class RetargetVerdict(NamedTuple):
    """One kernel: its class, why, what to know of it, and whether it goes into the result (else its body there is a trap)."""

    kernel: str
    number: int
    why: str
    cautions: tuple[str, ...]
    taken: bool


class Level(NamedTuple):
    """Another PTX of the module: its SM number and its text."""

    arch: int
    text: Text


class Used(NamedTuple):
    """The image that is compared with: its target, whether the GPU loads it today, its kernels and the classes of their bodies."""

    target: str
    arch: int
    loaded: bool
    rows: Mapping[str, KernelFacts]
    bodies: Mapping[str, str]
    bounds: Mapping[str, Bounds]


class Evidence(NamedTuple):
    """All that is known of one module: what ptxas refused and why, the kernels of its answer, the text and where it comes from."""

    text: Text
    source: int
    device: int
    bodies: Mapping[str, str]
    rejected: Mapping[str, str]
    made: Mapping[str, KernelFacts]
    bounds: Mapping[str, Bounds]
    rewrites: Mapping[str, Sequence[Rewrite]]
    levels: Sequence[Level]
    used: Used | None


class Wanted(NamedTuple):
    """What may go into the result besides class 1: class 2, and kernels by their names."""

    unverified: bool = False
    kernels: frozenset[str] = frozenset()


def verdicts(evidence: Evidence, wanted: Wanted) -> list[RetargetVerdict]:
    """One for each kernel of the text, in its order."""
    result = []
    for kernel in evidence.text.entries:
        number, why = _number(kernel, evidence)
        cautions = () if number == REJECTED else tuple(_cautions(kernel, evidence))
        allowed = number == IDENTICAL or (number == UNCHANGED and wanted.unverified) or kernel in wanted.kernels
        result.append(RetargetVerdict(kernel, number, why, cautions, allowed and number != REJECTED))
    return result


def _number(kernel: str, known: Evidence) -> tuple[int, str]:
    if kernel in known.rejected:
        return REJECTED, known.rejected[kernel]
    body = known.bodies.get(kernel, flow.UNKNOWN)
    if body in _NOTHING_INSIDE:
        return STUB, f"its body in compute_{known.source} is {body}: it would do nothing there"
    if known.source == known.device:
        return IDENTICAL, f"compute_{known.source} was made for this GPU"
    if known.source < known.device:
        return IDENTICAL, f"compute_{known.source} is what a driver would compile for this GPU too"
    same = [level.arch for level in known.levels if kernel in level.text.entries and _same(kernel, known, level)]
    below = [arch for arch in same if arch <= known.device]
    if below and kernel not in known.rewrites and not known.text.calls_by_pointer(kernel):
        return IDENTICAL, f"the same code as in compute_{max(below)}: between the two the source makes no difference"
    number, why = _shape(kernel, known)
    above = f"; compute_{same[0]} has the same code, but is above the GPU too, which proves nothing" if same and not below else ""
    return number, why + above


def _same(kernel: str, known: Evidence, level: Level) -> bool:
    return known.text.essence(kernel) == level.text.essence(kernel)


def _shape(kernel: str, known: Evidence) -> tuple[int, str]:
    """Whether what the host counts on is as in the image that it is used with today."""
    used = known.used
    if used is None or kernel not in used.rows:
        return DIFFERENT, "no other image of the module has this kernel, so nothing can be compared"
    if used.bodies.get(kernel) in _NOTHING_INSIDE:
        return DIFFERENT, f"its body in {used.target} is a stub, which says nothing of shared memory"
    new, old = known.made.get(kernel), used.rows[kernel]
    if new is None:
        return DIFFERENT, "is not in what ptxas made"
    shared = own_shared(old.shared_bytes, used.arch), own_shared(new.shared_bytes, known.device)
    bounds = used.bounds.get(kernel, ()), known.bounds.get(kernel, ())
    parameters = old.parameters, new.parameters
    if old.parameters is not None and new.parameters is not None and same_parameters(old.parameters, new.parameters):
        parameters = old.parameters, old.parameters
    shapes = (("static shared memory", *shared), ("launch bounds", *bounds), ("parameters", *parameters))
    differing = [f"{word} {_words(theirs)} in {used.target}, {_words(ours)} here" for word, theirs, ours in shapes if theirs != ours]
    if differing:
        return DIFFERENT, "; ".join(differing)
    which = "the image used today" if used.loaded else "the nearest image, for none is used today"
    return UNCHANGED, f"shared memory, launch bounds and parameters as in {used.target}, {which}; the code is another one"


def _words(value: object) -> str:
    if isinstance(value, tuple):
        bounds = [each for each in value if isinstance(each[0], str)]
        return (", ".join(f"{name} {data}" for name, data in bounds) or "not stated") if bounds or not value else str(len(value))
    return "not stated" if value is None else str(value)


def _cautions(kernel: str, known: Evidence) -> list[str]:
    found = [f"{rewrite.name}: {rewrite.why}" for rewrite in known.rewrites.get(kernel, ())]
    if known.source > known.device:
        found += cautions(known.text.data, known.text.header(kernel), known.text.body(kernel), known.device)
    return found


def trapped(found: Collection[RetargetVerdict]) -> frozenset[str]:
    """The kernels whose bodies become traps."""
    return frozenset(verdict.kernel for verdict in found if not verdict.taken)
