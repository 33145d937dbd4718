"""The verdict on one module: which image a GPU's driver loads, why not the others, and what each of its kernels is then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.gpucode import flow
from fatpatch.gpus.selection import choose, promised, refused
from fatpatch.model.kinds import HOSTS, PTX_TEXTS, ImageKind, ModuleKind
from fatpatch.model.target import Target
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader, ImageFacts, arch_of
from fatpatch.verdicts.jit import Cost
from fatpatch.verdicts.load_result import NO_IMAGE, UNSUPPORTED_PTX, LoadResult
from fatpatch.verdicts.loading import Loading, load

NATIVE: Final = "native"
COMPATIBLE: Final = "compatible"
JIT: Final = "jit"
EMPTY: Final = "empty"
STUB: Final = "stub"
FAILS: Final = "fails"
SEVERITY: Final = (EMPTY, NATIVE, COMPATIBLE, JIT, STUB, FAILS)
"""Every verdict, the best first."""

_MISSING_KERNEL: Final = 500
_SMALL: Final = 1 << 14
_PROBE: Final = 512
"""Bytes that an image without kernels at most has."""


class KernelVerdict(NamedTuple):
    """One kernel as a device gets it. ``body``: its class (see ``flow``), "missing" when the loaded image lacks it.

    ``defect``: the body does not work although a host would launch it, for the model where one is given; ``broken``: for some
    model. ``real_in``: targets of the module where it is real. ``message``: what it prints before it traps. ``note``: why a dead
    body is no defect. ``shape``: a hash of the opcodes of a dead body: stubs of one image share it.
    """

    name: str
    verdict: str
    body: str
    defect: bool = False
    real_in: tuple[str, ...] = ()
    message: str | None = None
    note: str = ""
    broken: bool = False
    shape: str | None = None


class ModuleVerdict(NamedTuple):
    """One module on one device. ``cuda_error``: the CUresult of the load, or of launching what a loaded image lacks or nothing links;
    ``outcome``: "crash" or "hang" of the process instead.

    ``lost``: (target, why it is not loaded) of the other images. ``cost``: of compiling its PTX. ``measured``: the rule was
    asked of a real driver. ``toolkit``: what made the image; ``origin``: what made another one of the module, where that was looked up.
    ``unlinked``: (kernel, CUresult of its first use) if nothing links this relocatable module. ``vacant``: no image of the module
    has a kernel, so that nothing is missing.
    """

    locator: str
    offset: int
    size: int
    verdict: str
    cuda_error: int | None
    outcome: str | None
    image: ImageEntry | None
    target: str | None
    reason: str
    lost: tuple[tuple[str, str], ...] = ()
    kernels: tuple[KernelVerdict, ...] = ()
    cost: Cost | None = None
    measured: bool = False
    toolkit: str | None = None
    unlinked: tuple[tuple[str, int], ...] = ()
    origin: str | None = None
    vacant: bool = False

    @property
    def defects(self) -> tuple[KernelVerdict, ...]:
        """The kernels that do not work."""
        return tuple(kernel for kernel in self.kernels if kernel.defect)

    @property
    def partly(self) -> bool:
        """Whether it loads and only some of its kernels fail."""
        return self.verdict == FAILS and any(kernel.verdict != FAILS for kernel in self.kernels)


def judge(node: Node, payload: Payload, environment: Environment, reader: FactsReader) -> ModuleVerdict:
    """Load one fatbin, cubin or PTX of a node on a device; whether its dead bodies are defects is for ``stubs`` to say."""
    try:
        loading = _loaded(node.content, payload, environment, reader)
    except FatpatchError as error:  # a limit of ours: what the driver makes of it is not known, and that is not "fine"
        loading = Loading(None, LoadResult(), f"cannot be judged: {error.message}")
    if payload.fillers and not payload.images and loading.image is None:
        loading = loading._replace(reason="its images were removed in place")
    lost = tuple(_lost(payload, loading.image, environment))
    verdict = _verdict_of(payload, loading, environment, lost)
    if loading.image is None or not loading.result.good:
        toolkit = reader.toolkit(node.content, payload) if payload.wrapper is not None else None
        if verdict.cuda_error in (NO_IMAGE, UNSUPPORTED_PTX) and is_empty(node.content, payload, reader):
            word = EMPTY if node.container in HOSTS else FAILS  # a host asks an empty module for nothing
            return verdict._replace(verdict=word, vacant=True, reason=f"{verdict.reason}; none of it has a kernel", toolkit=toolkit)
        return verdict._replace(toolkit=toolkit)
    facts = reader.facts(node.content, loading.image, loading.content)
    if facts.problem:
        return verdict._replace(verdict=FAILS, reason=f"{verdict.reason}; but its kernels cannot be read: {facts.problem}")
    if node.container in HOSTS and verdict.verdict == JIT and is_empty(node.content, payload, reader):
        return verdict._replace(verdict=EMPTY, vacant=True, reason=f"{verdict.reason}; it does nothing", toolkit=facts.toolkit)
    if not facts.bodies:
        return verdict._replace(verdict=EMPTY, reason=f"{verdict.reason}; it has no kernels", cost=facts.cost, toolkit=facts.toolkit)
    kernels = [KernelVerdict(name, verdict.verdict, body) for name, body in facts.bodies.items()]
    kernels += _missing(node, payload, loading.image, facts, environment, reader)
    origin = reader.origin(node.content, payload, loading.image) if payload.wrapper is not None else None
    return verdict._replace(kernels=tuple(kernels), cost=facts.cost, toolkit=facts.toolkit, unlinked=facts.unlinked, origin=origin)


def is_empty(source: Source, payload: Payload, reader: FactsReader) -> bool:
    """Whether no image of a module has a kernel; images that are large have, and are not read for it."""
    images = [image for image in payload.images if image.within is None]
    if not images:
        return False
    for image in images:
        if image.kind not in (ImageKind.SASS, ImageKind.PTX) or not image.readable or (image.size or 0) > _SMALL:
            return False
    probe = any(image.kind == ImageKind.PTX and (image.size or 0) <= _PROBE for image in images)
    return all(reader.names(source, image) == frozenset() or (probe and _does_nothing(source, image, reader)) for image in images)


def _does_nothing(source: Source, image: ImageEntry, reader: FactsReader) -> bool:
    """Whether all bodies return at once; where the PTX is a few bytes that is all they ever did, as in cuBLASLt's probe of the hardware."""
    facts = reader.facts(source, image)
    return bool(facts.bodies) and all(body == flow.EMPTY for body in facts.bodies.values())


def _loaded(source: Source, payload: Payload, environment: Environment, reader: FactsReader) -> Loading:
    view = reader.view(source, payload) if payload.kind == ModuleKind.FATBIN else None
    loading = load(source, payload, environment, reader.limit, view, reader.opened)
    if loading.image is not None and loading.content is not None and loading.content.data is not None:
        reader.spend(loading.image)
    return loading


def _verdict_of(payload: Payload, loading: Loading, environment: Environment, lost: tuple[tuple[str, str], ...]) -> ModuleVerdict:
    image, result = loading.image, loading.result
    reason = loading.reason if result.good or not result.reason else f"{loading.reason}, but {result.reason}"
    verdict = FAILS
    if image is not None and result.good:
        verdict = JIT if image.kind in PTX_TEXTS else NATIVE if arch_of(image) == environment.device.arch else COMPATIBLE
    target = None if image is None else image.target
    return ModuleVerdict(
        *(payload.locator, payload.offset, payload.size, verdict, result.error, result.outcome, image, target, reason, lost),
        measured=loading.measured,
    )


def verdict_on(payload: Payload, verdict: str, error: int | None, image: ImageEntry | None, reason: str) -> ModuleVerdict:
    """The verdict on a module by the image that is chosen of it, before its kernels are looked at."""
    target = None if image is None else image.target
    return ModuleVerdict(payload.locator, payload.offset, payload.size, verdict, error, None, image, target, reason)


def _missing(
    node: Node, payload: Payload, chosen: ImageEntry, facts: ImageFacts, environment: Environment, reader: FactsReader
) -> Iterator[KernelVerdict]:
    """Kernels that images nearer to the device have and the chosen one lacks: launching one is error 500, never a fallback.

    What only images for other devices have is meant for those.
    """
    arch = environment.device.arch
    assert arch is not None
    nearer = [
        image
        for image in payload.images
        if image.kind in (ImageKind.SASS, ImageKind.PTX) and image.readable and image.within is None and arch_of(chosen) < arch_of(image)
        if choose([image], arch).image is not None  # alone it would be loaded: it is for this device
    ]
    holders: dict[str, list[str]] = {}
    for image in nearer:
        for name in (reader.names(node.content, image) or frozenset()) - facts.bodies.keys():
            holders.setdefault(name, []).append(image.target)
    for name, targets in sorted(holders.items()):
        yield KernelVerdict(name, FAILS, "missing", True, tuple(targets), broken=True)


def _lost(payload: Payload, chosen: ImageEntry | None, environment: Environment) -> Iterator[tuple[str, str]]:
    """Why each of the other images is not loaded, once for each target and reason."""
    seen = set()
    for image in payload.images:
        if chosen is not None and image.offset == chosen.offset and image.within == chosen.within:
            continue
        row = (image.target, _why_not(image, chosen, environment))
        if row not in seen:
            seen.add(row)
            yield row


def _why_not(image: ImageEntry, chosen: ImageEntry | None, environment: Environment) -> str:
    arch = environment.device.arch
    assert arch is not None
    if image.within is not None:
        return "concatenated entries are ignored by drivers up to 580"
    if image.kind not in (ImageKind.SASS, ImageKind.PTX):
        return f"entries of kind {image.kind} are not loaded"
    number, suffix = arch_of(image), Target(image.target).suffix
    if suffix == "a" and number != arch and number >= 90:
        return f"suffix a: for {_name(number)} only"
    if suffix == "f" and number // 10 != arch // 10:
        return f"suffix f: for the family of {_name(number)} only"
    if image.kind == ImageKind.SASS:
        return _why_not_sass(number, arch, chosen, environment)
    if number > arch:
        return f"PTX for {_name(number)} and up"
    if chosen is not None and chosen.kind == ImageKind.SASS:
        return "SASS takes precedence over PTX"
    return "other PTX is nearer" if chosen is not None else "not chosen"


def _why_not_sass(number: int, arch: int, chosen: ImageEntry | None, environment: Environment) -> str:
    if number // 10 != arch // 10:
        return f"SASS for major version {number // 10}, the GPU is {arch // 10}"
    if number > arch:
        return f"SASS for a higher minor version ({_name(number)})"
    if environment.force_ptx:
        return "the environment asks for PTX"
    if number in refused(arch):
        return f"SASS for {_name(number)}, which this board was reported to refuse"
    if chosen is None:
        return "the driver does not take it"
    return "another image is nearer" if chosen.kind == ImageKind.SASS else "not chosen"


def _name(arch: int) -> str:
    return f"{arch // 10}.{arch % 10}"


def settle(verdict: ModuleVerdict) -> ModuleVerdict:
    """The module's verdict once its kernels are judged: a dead body, a missing or unlinked kernel that a host launches decides."""
    defects = verdict.defects
    if not defects:
        return verdict
    if any(kernel.verdict != FAILS for kernel in defects):
        return verdict._replace(verdict=STUB)
    codes = dict(verdict.unlinked)
    missing = sum(kernel.body == "missing" for kernel in defects)
    count = missing or len(defects)
    kernels = "1 kernel is" if count == 1 else f"{count} kernels are"
    words = f"{kernels} not in it" if missing else f"{kernels} relocatable code that nothing links"
    code = _MISSING_KERNEL if missing else codes[defects[0].name]
    return verdict._replace(verdict=FAILS, cuda_error=code, reason=f"{verdict.reason}; {words}")


def not_promised(verdict: ModuleVerdict, environment: Environment) -> bool:
    """Whether NVIDIA's documents leave it open that the machine code, which is loaded, runs on the device (Tegra)."""
    if verdict.verdict == FAILS or verdict.image is None or verdict.image.kind != ImageKind.SASS or environment.device.arch is None:
        return False
    return not promised(arch_of(verdict.image), environment.device.arch)
