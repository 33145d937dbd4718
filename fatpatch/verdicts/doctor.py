"""The whole answer for one file on one device: every module, the host's dispatch, the model, and what it needs of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from fatpatch.coverage import all_diagnostics, members_below, payloads_below
from fatpatch.gpus.amd import NO_BINARY, choose_object
from fatpatch.gpus.drivers import (
    cuda_of_ptx,
    drivers_for_arch,
    first_driver_for_arch,
    first_driver_for_ptx,
    first_zstd_driver,
    minimum_for_toolkit,
)
from fatpatch.gpus.generations import generation
from fatpatch.gpus.tables import version_key
from fatpatch.model import Diagnostic, ModelFacts, Node, Payload
from fatpatch.verdicts import quants
from fatpatch.verdicts.dispatch import Host, host_of
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader, arch_of
from fatpatch.verdicts.jit import Cost, total
from fatpatch.verdicts.linking import linked
from fatpatch.verdicts.mismatch import doubtful
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, FAILS, JIT, NATIVE, SEVERITY, STUB, ModuleVerdict, judge
from fatpatch.verdicts.stubs import with_stubs

GOOD: Final = frozenset({EMPTY, NATIVE, COMPATIBLE, JIT})
DRIVER_TOO_OLD: Final = 35
NO_DEVICE: Final = 100
_MAX_HOSTS: Final = 64
_MAX_TYPES: Final = 64
_NOT_READ: Final = Host(None, (), False, None, f"only the host code of the first {_MAX_HOSTS} libraries is read")


class Judged(NamedTuple):
    """One module with where it stands: ``host`` is what is known of the host code of the file that holds it.

    ``doubtful``: kernels that may compute wrong numbers (``mismatch.doubtful``).
    """

    node: Node
    payload: Payload
    verdict: ModuleVerdict
    host: Host
    doubtful: tuple[str, ...] = ()


class Need(NamedTuple):
    """The lowest driver, on Linux and on Windows, and what for."""

    linux: str
    windows: str
    why: str


class QuantVerdict(NamedTuple):
    """Whether models of a tensor type run: ``broken`` are kernels that they launch and that do not work."""

    quant: str
    broken: tuple[str, ...]


class FileVerdict(NamedTuple):
    """One file on one device. ``verdict`` is the worst of its modules but those ``elsewhere``; None without any.

    ``trouble``: (CUresult, words) when GPU and driver do not fit each other, or the driver is too old for the program.
    ``mismatch``: modules with doubtful kernels. ``elsewhere``: modules made for other generations only, among others that load.
    ``no_road``: (tensor type of the model, why the program cannot run it). ``cost``: of all PTX that is compiled.
    ``needs``: what the driver must do, the most demanding first; ``last_driver``: the last branch that drives the GPU.
    """

    node: Node
    environment: Environment
    verdict: str | None
    modules: tuple[Judged, ...]
    model: ModelFacts | None
    model_name: str | None
    model_quants: tuple[str, ...]
    quants: tuple[QuantVerdict, ...]
    needs: tuple[Need, ...]
    last_driver: str | None
    trouble: tuple[int, str] | None
    mismatch: tuple[Judged, ...]
    elsewhere: tuple[Judged, ...]
    no_road: tuple[tuple[str, str], ...]
    cost: Cost | None
    slowest: Judged | None
    unread: tuple[Diagnostic, ...]

    @property
    def good(self) -> bool:
        """Whether nothing is known against it: every module loads, every kernel that matters is there, all of the file was read."""
        return self.verdict in GOOD and not self.unread


class Doctor:
    """Judges one file for any number of devices: what does not depend on the device is read once."""

    def __init__(self, node: Node, *, limit: int, model: ModelFacts | None = None, model_name: str | None = None) -> None:
        self.node = node
        self.limit = limit
        self.reader = FactsReader(limit, node.size)
        self.model, self.model_name = (model, model_name) if model is not None else _model_inside(node)
        self.pairs = list(payloads_below(node))
        self._hosts: dict[str, Host] = {}

    def judge(self, environment: Environment) -> FileVerdict:
        """The verdict for one device and driver."""
        if environment.device.vendor == "amd":
            modules = [self._judge_amd(node, payload, environment) for node, payload in self.pairs if payload.vendor == "amd"]
        else:
            modules = self._judge_nvidia(environment)
        trouble = _trouble(modules, environment)
        if trouble is not None:
            modules = [_failed(module, trouble) for module in modules]
        whole = FileVerdict(
            node=self.node,
            environment=environment,
            verdict=None,
            modules=(),
            model=self.model,
            model_name=self.model_name,
            model_quants=tuple(sorted(frozenset(_quantised(self.model)))),
            quants=tuple(_quants(modules, environment)),
            needs=(),
            last_driver=None if environment.device.arch is None else (drivers_for_arch(environment.device.arch) or ("", None))[1],
            trouble=trouble,
            mismatch=(),
            elsewhere=(),
            no_road=tuple(_no_road(modules, self.model, environment)),
            cost=None,
            slowest=None,
            unread=(*(item for item in all_diagnostics(self.node) if item.level == "error"), *self._problems()),
        )
        return with_modules(whole, modules)

    def _problems(self) -> Iterator[Diagnostic]:
        """What judging could not read: of images that the answer hangs on."""
        for locator, message in self.reader.problems.items():
            yield Diagnostic(locator, "error", None, message)

    def _judge_nvidia(self, environment: Environment) -> list[Judged]:
        pairs = [(node, payload) for node, payload in self.pairs if payload.vendor == "nvidia"]
        loaded = [judge(node, payload, environment, self.reader) for node, payload in pairs]
        groups: dict[str, list[int]] = {}
        for index, (node, _) in enumerate(pairs):
            groups.setdefault(node.locator, []).append(index)
        result: dict[int, Judged] = {}
        for indices in groups.values():
            node = pairs[indices[0]][0]
            host = self._host(node, [pairs[index][1] for index in indices], [loaded[index] for index in indices])
            verdicts = linked([(pairs[index][1], loaded[index]) for index in indices])
            needed = self._needed(verdicts, host, environment)
            for index, verdict in zip(indices, verdicts, strict=True):
                payload = pairs[index][1]
                settled = with_stubs(node, payload, verdict, environment, host, needed, self.reader)
                arch = environment.device.arch
                suspects = () if arch is None else doubtful(settled, host, arch, needed)
                result[index] = Judged(node, payload, settled, host, suspects)
        return [result[index] for index in range(len(pairs))]

    def _host(self, node: Node, payloads: Sequence[Payload], verdicts: Sequence[ModuleVerdict]) -> Host:
        if node.locator not in self._hosts:
            names = {kernel.name for verdict in verdicts for kernel in verdict.kernels}
            for payload, verdict in zip(payloads, verdicts, strict=True):
                if not verdict.kernels:
                    names |= self._any_names(node, payload)
            archs = frozenset(arch_of(image) for payload in payloads for image in payload.images)
            many = len(self._hosts) >= _MAX_HOSTS
            self._hosts[node.locator] = _NOT_READ if many else host_of(node, frozenset(names), archs)
        return self._hosts[node.locator]

    def _any_names(self, node: Node, payload: Payload) -> frozenset[str]:
        """The kernels of a module that loads nothing, from the image that is fastest to read."""
        readable = [image for image in payload.images if image.kind in ("sass", "ptx") and image.readable]
        best = min(readable, key=lambda image: (image.kind != "sass", image.size or 0), default=None)
        return frozenset() if best is None or node.source is None else self.reader.names(node.source, best) or frozenset()

    def _needed(self, verdicts: Iterable[ModuleVerdict], host: Host, environment: Environment) -> dict[str, str] | None:
        """The kernels that the model launches; None when no model is given or the host is not known."""
        arch = environment.device.arch
        if self.model is None or host.family is None or host.family.uses_arch_list or arch is None:
            return None
        names = [kernel.name for verdict in verdicts for kernel in verdict.kernels]
        return quants.launched(names, frozenset(_all_types(self.model)), host.decides_by(arch), host.family.era)

    def _judge_amd(self, node: Node, payload: Payload, environment: Environment) -> Judged:
        choice = choose_object([image for image in payload.images if image.target.startswith(("gfx", "amdgcn"))], environment.device.target)
        verdict = {"native": NATIVE, "generic": COMPATIBLE, "spirv": JIT}.get(choice.how, FAILS)
        lost = tuple((image.target, "for another processor") for image in payload.images if image is not choice.image and image.size)
        module = ModuleVerdict(
            locator=payload.locator,
            offset=payload.offset,
            size=payload.size,
            verdict=verdict,
            cuda_error=None if choice.image is not None else NO_BINARY,
            outcome=None,
            image=choice.image,
            target=None if choice.image is None else choice.image.target,
            reason=choice.reason,
            lost=tuple(dict.fromkeys(lost)),
            kernels=(),
            cost=None,
            measured=False,
        )
        return Judged(node, payload, module, Host(None, (), False, None, "AMD host code is not read"))


def _model_inside(node: Node) -> tuple[ModelFacts | None, str | None]:
    """The one GGUF model in an archive."""
    models = [member for member in members_below(node) if member.facts is not None]
    return (models[0].facts, models[0].path) if len(models) == 1 else (node.facts, None if node.facts is None else node.path)


def _all_types(model: ModelFacts) -> list[str]:
    return [name for name, _ in model.tensor_types]


def _quantised(model: ModelFacts | None) -> list[str]:
    return [] if model is None else [name for name in _all_types(model) if name not in quants.PLAIN_TYPES]


def with_modules(found: FileVerdict, modules: Sequence[Judged]) -> FileVerdict:
    """The same verdict over some of the modules: all, or those of one library of several."""
    costs = [(module.verdict.cost, module) for module in modules if module.verdict.verdict in (JIT, STUB) and module.verdict.cost]
    elsewhere = tuple(_elsewhere(modules))
    away = frozenset(map(id, elsewhere))
    return found._replace(
        modules=tuple(modules),
        verdict=max((module.verdict.verdict for module in modules if id(module) not in away), key=SEVERITY.index, default=None),
        needs=tuple(_needs(modules, found.environment)),
        mismatch=tuple(module for module in modules if module.doubtful),
        elsewhere=elsewhere,
        cost=total([cost for cost, _ in costs]) if costs else None,
        slowest=max(costs, key=lambda pair: pair[0].seconds)[1] if costs else None,
    )


def libraries(found: FileVerdict) -> list[tuple[Node, FileVerdict]]:
    """The verdict of each file in an archive that holds code for the GPU's maker."""
    groups: dict[str, list[Judged]] = {}
    for module in found.modules:
        groups.setdefault(module.node.locator, []).append(module)
    return [(group[0].node, with_modules(found, group)) for group in groups.values()]


def _elsewhere(modules: Sequence[Judged]) -> Iterator[Judged]:
    """Modules for other generations on purpose: at most half of those that their file serves, where most of its modules do load.

    libcublas has such ones for 7.x only; a module that was forgotten in a build lacks one generation and has the others.
    """
    loaded: dict[str, list[bool]] = {}
    served: dict[str, set[int]] = {}
    for module in modules:
        loaded.setdefault(module.node.locator, []).append(module.verdict.verdict in GOOD)
        served.setdefault(module.node.locator, set()).update(_majors(module))
    for module in modules:
        siblings = loaded[module.node.locator]
        lacking = module.verdict.cuda_error == NO_BINARY and module.payload.vendor == "nvidia" and module.payload.images
        if lacking and 2 * sum(siblings) > len(siblings) and 2 * len(_majors(module)) <= len(served[module.node.locator]):
            yield module


def _majors(module: Judged) -> frozenset[int]:
    return frozenset(arch_of(image) // 10 for image in module.payload.images)


def _no_road(modules: Sequence[Judged], model: ModelFacts | None, environment: Environment) -> Iterator[tuple[str, str]]:
    """The tensor types of the model that no library of the file can run."""
    arch = environment.device.arch
    hosts: dict[int, tuple[Host, list[str]]] = {}
    for module in modules:
        if module.host.family is not None:
            names = hosts.setdefault(id(module.host), (module.host, []))[1]
            names += [kernel.name for kernel in module.verdict.kernels]
    if arch is None or model is None or not hosts:
        return
    programs = [(host, host.family.era, quants.roads_of(names)) for host, names in hosts.values() if host.family is not None]
    for quant in _all_types(model)[:_MAX_TYPES]:
        reasons = [quants.no_road(roads, quant, host.decides_by(arch), era) for host, era, roads in programs]
        if all(reasons) and reasons[0] is not None:
            yield quant, reasons[0]


def _quants(modules: Sequence[Judged], environment: Environment) -> list[QuantVerdict]:
    """For every tensor type that the program has kernels for: what breaks."""
    arch = environment.device.arch
    result: dict[str, set[str]] = {}
    for module in modules:
        family = module.host.family
        if family is None or family.uses_arch_list or arch is None:
            continue
        names = [kernel.name for kernel in module.verdict.kernels]
        dead = {kernel.name for kernel in module.verdict.kernels if kernel.broken}
        failed = module.verdict.verdict == FAILS
        for quant in quants.quants_in(names):
            taken = quants.launched(names, frozenset({quant}), module.host.decides_by(arch), family.era)
            result.setdefault(quant, set()).update(name for name in taken if failed or name in dead)
    return [QuantVerdict(quant, tuple(sorted(found))) for quant, found in result.items()]


def _trouble(modules: Sequence[Judged], environment: Environment) -> tuple[int, str] | None:
    """What stands against GPU, driver and program together, before any module is loaded."""
    device, driver = environment.device, environment.driver
    if device.arch is None or driver is None:
        return None
    kind = f"{generation(device.arch)} (compute capability {device.arch // 10}.{device.arch % 10})".strip()
    if driver.oldest_arch > device.arch:
        return NO_DEVICE, f"driver {driver.version} no longer drives {kind}; it starts with {driver.oldest_generation}"
    known = drivers_for_arch(device.arch)
    if known is not None and version_key(known[0])[:1] > version_key(driver.branch)[:1]:
        return NO_DEVICE, f"driver {driver.version} does not know {kind} yet; the first that does is {known[0]}"
    for cuda in sorted(_runtimes(modules), key=version_key, reverse=True):
        if version_key(cuda)[0] > version_key(driver.cuda)[0]:
            least = minimum_for_toolkit(cuda)
            wanted = f"; it needs {least[0]} on Linux, {least[1]} on Windows" if least else ""
            return DRIVER_TOO_OLD, f"the program was made with CUDA {cuda}, and driver {driver.version} is of CUDA {driver.cuda}{wanted}"
    return None


def _runtimes(modules: Sequence[Judged]) -> frozenset[str]:
    """The CUDA releases whose runtime registers modules: a wrapper is proof of the runtime, its machine code of the release."""
    return frozenset(cuda for module in modules if module.payload.wrapper is not None and (cuda := _cuda_of(module.verdict)) is not None)


def _cuda_of(verdict: ModuleVerdict) -> str | None:
    """The CUDA release that made the chosen image: what it states, or the first that writes its PTX version."""
    if verdict.toolkit is not None and verdict.toolkit.startswith("CUDA "):
        return verdict.toolkit[5:]
    image = verdict.image
    return cuda_of_ptx(image.code_version) if image is not None and image.kind == "ptx" and image.code_version else None


def _failed(module: Judged, trouble: tuple[int, str]) -> Judged:
    verdict = module.verdict._replace(verdict=FAILS, cuda_error=trouble[0], outcome=None, reason=trouble[1])
    return module._replace(verdict=verdict)


def _needs(modules: Sequence[Judged], environment: Environment) -> list[Need]:
    """What the driver must be able to do, the most demanding first; at most one of each kind. None for Jetson's own drivers."""
    arch = environment.device.arch
    first = None if arch is None else first_driver_for_arch(arch)
    if arch is None or first is None:
        return []
    found = [Need(*first, f"drives {generation(arch) or 'this GPU'}")]
    loaded = [module.verdict for module in modules if module.verdict.image is not None]
    isas = {image.code_version for verdict in loaded if (image := verdict.image) is not None and image.kind == "ptx" and image.code_version}
    if isas:
        isa = max(isas, key=version_key)
        least = first_driver_for_ptx(isa)
        if least is not None:
            found.append(Need(*least, f"compiles PTX {isa}"))
    if any(verdict.image is not None and verdict.image.compression == "zstd" for verdict in loaded):
        found.append(Need(*first_zstd_driver(), "reads zstd-compressed code"))
    if runtimes := _runtimes(modules):
        cuda = max(runtimes, key=version_key)
        least = minimum_for_toolkit(cuda)
        if least is not None:
            found.append(Need(*least, f"runs programs made with CUDA {cuda}"))
    return sorted(found, key=lambda need: version_key(need.linux), reverse=True)
