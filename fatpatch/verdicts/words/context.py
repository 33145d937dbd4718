"""What belongs to a verdict besides the modules: the first start, the host code, the model, the driver, the notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fatpatch.base.locator import SEPARATOR
from fatpatch.base.words import plural, safe, size
from fatpatch.gpucode import flow
from fatpatch.gpus.drivers import last_cuda_on_jetson, on_jetson_linux
from fatpatch.gpus.marks import MARK
from fatpatch.model.kinds import BundleForm, ContainerKind, Vendor
from fatpatch.verdicts.dispatch import EQUAL
from fatpatch.verdicts.facts import arch_of, is_dead
from fatpatch.verdicts.jit import FASTEST, SLOWEST
from fatpatch.verdicts.module import EMPTY, not_promised
from fatpatch.verdicts.outcome import outcome_of
from fatpatch.verdicts.requirements import beyond_jetson, cuda_needed
from fatpatch.verdicts.results import FileVerdict, Judged, QuantVerdict

LOADED = frozenset(
    {
        "abort",
        "may-fail",
        "may-be-wrong",
        "no-road",
        "slow-start",
        "not-promised",
        "runs",
        "fails-in-part",
        "may-fail-in-part",
        "runs-in-part",
    }
)

_MAX_TYPES = 12
_WORTH_A_WORD = 0.5


def jit(found: FileVerdict) -> Iterator[str]:
    """The first start: how long the driver compiles, and what it caches."""
    cost = found.cost
    if cost is None or cost.seconds < _WORTH_A_WORD or found.slowest is None or found.slowest.verdict.cost is None:
        return
    yield ""
    low, high = seconds(cost.seconds * FASTEST), seconds(cost.seconds * SLOWEST)
    worst = found.slowest.verdict.cost
    yield f"First start on this GPU: about {seconds(cost.seconds)} of compiling on one core if all modules are used ({low} to {high});"
    yield f"  the longest stall is about {seconds(worst.seconds)}, for {safe(_inside(found.slowest.verdict.locator))}."
    yield f"  It is cached afterwards: about {size(cost.cache_bytes)} (~/.nv/ComputeCache; Windows: %APPDATA%\\NVIDIA\\ComputeCache)."


def seconds(value: float) -> str:
    """``0.4 s``, ``59 s``, ``6 min``."""
    if value < 10:
        return f"{value:.1f} s"
    return f"{value:.0f} s" if value < 120 else f"{value / 60:.0f} min"


def host(found: FileVerdict) -> Iterator[str]:
    """The host program: by what it decides, and which road it takes."""
    arch = found.environment.device.arch
    hosts = {id(module.host): module for module in found.modules if module.host.family is not None}
    if arch is None or found.trouble is not None or not hosts:
        if arch is not None and found.modules and not hosts and outcome_of(found) == "may-fail":
            yield ""
            yield f"Host code: {safe(found.modules[0].host.reason)}."
        return
    module = next(iter(hosts.values()))
    host = module.host
    assert host.family is not None
    numbers = ", ".join(f"{value // 100}.{value // 10 % 10}" for value in host.thresholds)
    source = "read from its code" if host.read else "as is usual for programs of that time; not found in this one"
    decides = host.decides_by(arch)
    by = "the GPU" if decides == arch * 10 else "its list of targets" + ("" if decides > 0 else ", which has none for this GPU")
    yield ""
    steps = "knows the steps" if decides == arch * 10 else "its code has the steps"
    yield f"Host code: {host.family.project}, {host.family.era}; it decides by {by}, and {steps} {numbers} ({source})."
    images = sorted({arch_of(module.verdict.image) for module in found.modules if module.verdict.image is not None})
    if found.mismatch and images:
        compiled = ", ".join(f"{number // 10}.{number % 10}" for number in images)
        step = f"{decides // 100}.{decides // 10 % 10}" if decides > 0 else "nothing"
        names = [name for module in found.mismatch for name in module.doubtful]
        yield f"  It takes the road for {step}; the code was compiled for {compiled}. {plural(len(set(names)), 'kernel')} may compute wrong"
        yield f"  numbers, such as {safe(names[0])[:80]}: launched in a shape that they were not compiled for."
    elif images and all(host.agrees(arch, number) == EQUAL for number in images):
        yield "  The code that is loaded was compiled for the same side of every step."


def registration(found: FileVerdict) -> Iterator[str]:
    """Kernels that the host registers and no image has."""
    names = found.missing_kernels
    if names and found.trouble is None:
        words = f"{plural(len(names), 'kernel')} that the host registers {'is' if len(names) == 1 else 'are'} in no image of the file"
        yield ""
        yield f"{words}: launching one is error 500 ({safe(', '.join(names[:3]))}{', ...' if len(names) > 3 else ''})."


def model(found: FileVerdict) -> Iterator[str]:
    """The model: its types, and which of them break."""
    model = found.model
    if model is None and not found.quants:
        return
    broken = [quant for quant in found.quants if quant.broken]
    if model is not None or broken:
        yield ""
    if model is not None:
        kinds = ", ".join(f"{count} {name}" for name, count in model.tensor_types[:_MAX_TYPES])
        name = f"{safe(found.model_name)}: " if found.model_name else ""
        yield f"Model: {name}{safe(model.architecture or 'unknown architecture')}, {plural(model.tensors, 'tensor')} ({safe(kinds)})"
        if found.modules and not found.quants and all(module.host.family is None for module in found.modules):
            yield "  which kernels it needs is not known: the host program is not one that fatpatch knows"
    for quant, why in found.unsupported_types:
        yield f"  {safe(quant)}: {why}."
    if broken:
        good = [quant for quant in found.quants if not quant.broken]
        yield f"  Matrices in {_listed(broken)} do not work on this GPU{f'; those in {_listed(good)} do' if good else ''}."


def _listed(quants: Iterable[QuantVerdict]) -> str:
    return ", ".join(quant.quant for quant in quants)


def needs(found: FileVerdict) -> Iterator[str]:
    """The drivers that the file can do with, where none was named."""
    if not found.needs or found.environment.driver is not None or outcome_of(found) not in LOADED:
        return
    least = found.needs[0]
    windows = f" ({least.windows} on Windows)" if least.windows and not _for_windows(found) else ""
    why = "; ".join(f"{need.why}: {need.windows if _for_windows(found) else need.linux}" for need in found.needs)
    yield ""
    yield f"Driver: {driver_range(found)}{windows}. {why[0].upper()}{why[1:]}."


def notes(found: FileVerdict) -> Iterator[str]:
    """What limits the answer."""
    environment = found.environment
    given = environment.device.note
    notes = [f"{environment.device.name}: {given}"] if given and not given.startswith("drivers print") else []
    notes += _driver_notes(found)
    if any(_unsure(module, found) for module in found.here):
        notes.append(
            f"{_of_tegra(found)}: NVIDIA does not guarantee that SASS runs across minor versions with Tegra; try it before you rely on it"
        )
    if found.trouble is None:
        notes += _footnotes(found)
    nvidia = environment.device.vendor == Vendor.NVIDIA
    if nvidia and found.modules and found.trouble is None and not all(module.verdict.measured for module in found.modules):
        notes.append("by NVIDIA's published rules; only compute capability 9.0 with driver 580 was measured")
    if environment.pretends and found.modules:
        advice = environment.override
        trust = "nothing known here says that it can run it" if advice is None else advice.caution
        notes.append(f"code for {environment.device.target} on {environment.own_target}: {trust}")
    if environment.device.vendor == Vendor.AMD and found.modules:
        notes += _packing_notes(found)
        notes.append("derived from the sources of AMD's runtime, not tried on an AMD GPU")
    notes += sorted({
        f"{module.verdict.target} was made by {module.verdict.image.identifier}: nothing here tells whether its numbers are right"
        for module in found.modules
        if module.verdict.image is not None and (module.verdict.image.identifier or "").startswith(MARK)
    })  # fmt: skip
    if found.unread and found.modules:
        first = found.unread[0]
        more = f" and {len(found.unread) - 1} more parts were not read" if len(found.unread) > 1 else " was not read"
        notes.append(f"{_inside(first.locator)}{more} ({first.message}), so this is not the whole answer")
    if notes:
        yield ""
        yield from (f"note: {safe(note)}" for note in notes)


def _of_tegra(found: FileVerdict) -> str:
    """The first module whose code is of a Tegra part, or is loaded by one, and how many there are."""
    places = [_inside(module.verdict.locator) for module in found.here if _unsure(module, found)]
    return places[0] + (f" and {plural(len(places) - 1, 'more module')}" if len(places) > 1 else "")


def _unsure(module: Judged, found: FileVerdict) -> bool:
    """Whether a module with kernels loads where NVIDIA guarantees nothing."""
    return module.verdict.verdict != EMPTY and not_promised(module.verdict, found.environment)


def _inside(locator: str) -> str:
    """A locator without the outermost file, which the first line names."""
    inner = locator.partition(SEPARATOR)[2]
    return inner or locator


def _packing_notes(found: FileVerdict) -> Iterator[str]:
    """What compressed bundles ask of the runtime."""
    modules = [module for unit in found.counted for module in unit.here] if found.libraries else found.modules
    versions = {module.payload.version for module in modules if module.payload.format == BundleForm.CCOB}
    if 3 in versions:
        yield "the bundles are compressed in version 3, which ROCm 7.1 and newer write: older runtimes may not read them"
    elif versions:
        yield f"the bundles are compressed in version {max(filter(None, versions))}: that takes a runtime of ROCm 6.2 or newer"


def _driver_notes(found: FileVerdict) -> Iterator[str]:
    device, driver = found.environment.device, found.environment.driver
    if driver is not None and driver.note:
        yield f"driver {driver.version}: {driver.note}"
    if driver is not None and found.last_driver is not None and found.trouble is None and int(driver.branch) >= int(found.last_driver):
        yield f"driver {driver.version} is of the last branch that drives this GPU"
    if device.arch is not None and on_jetson_linux(device.arch):
        cuda = cuda_needed(found.modules)
        words = f"; the code needs one of CUDA {cuda} or newer" if cuda else ""
        if beyond_jetson(found.modules, found.environment):
            words += f", and the last for this module is of CUDA {last_cuda_on_jetson(device.arch)}"
        yield f"Jetson Linux brings its own driver, which is not judged{words}"


def _footnotes(found: FileVerdict) -> Iterator[str]:
    """Dead bodies that are no defect, and bodies that could not be judged."""
    kernels = {(module.node.locator, kernel.name): (kernel, module) for module in found.modules for kernel in module.verdict.kernels}
    dead = [(kernel, module) for kernel, module in kernels.values() if is_dead(kernel.body) and not kernel.defect]
    ends = Counter(
        "which this model does not lead to"
        if kernel.broken
        else "which its host does not launch here"
        if module.host.family is not None
        else "; whether the host launches {} here is not known"
        for kernel, module in dead
    )
    for end, count in ends.items():
        words = end.format("it" if count == 1 else "them")
        sentence = f"{plural(count, 'kernel body is a stub', 'kernel bodies are stubs')} or empty in the loaded code"
        yield f"{sentence}{words}" if words.startswith(";") else f"{sentence}, {words}"
    unknown = sum(kernel.body == flow.UNKNOWN for kernel, _ in kernels.values())
    if unknown:
        yield f"{plural(unknown, 'kernel body', 'kernel bodies')} could not be judged: the code jumps through registers, or never ends"


def driver_range(found: FileVerdict) -> str:
    """``525.60.13 to 580``, ``550.54.14 or newer``: on Linux; what loads at all needs it."""
    least = found.needs[0].windows if _for_windows(found) else found.needs[0].linux
    return f"{least} or newer" if found.last_driver is None else f"{least} to {found.last_driver}"


def _for_windows(found: FileVerdict) -> bool:
    """Whether all libraries are DLLs or Windows programs, and the driver's versions there are known."""
    nodes = {id(module.node): module.node for module in found.modules}
    return bool(nodes) and all(node.container == ContainerKind.PE for node in nodes.values()) and all(need.windows for need in found.needs)


SECTIONS = (jit, host, registration, model, needs, notes)
