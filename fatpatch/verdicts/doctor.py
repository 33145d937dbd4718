"""The whole answer for one file on one device: every module, the host's dispatch, the model, and what it needs of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fatpatch.coverage import all_diagnostics, payloads_below
from fatpatch.diagnostics import NOT_READ
from fatpatch.gpus.drivers import driver, last_branch
from fatpatch.model import Diagnostic, ModelFacts, Node, Payload
from fatpatch.verdicts.dispatch import Host, host_of
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader, arch_of
from fatpatch.verdicts.fate import NO_IMAGE
from fatpatch.verdicts.jit import total
from fatpatch.verdicts.judged import GOOD, FileVerdict, Judged
from fatpatch.verdicts.linking import linked
from fatpatch.verdicts.mismatch import doubtful
from fatpatch.verdicts.models import model_inside, no_roads, quant_verdicts, quantised, types_of
from fatpatch.verdicts.module import FAILS, JIT, SEVERITY, STUB, ModuleVerdict, judge
from fatpatch.verdicts.module_amd import heard, judge_amd
from fatpatch.verdicts.quants import launched
from fatpatch.verdicts.requirements import needs, out_of_reach, trouble
from fatpatch.verdicts.stubs import with_stubs

_MAX_HOSTS: Final = 64
_NOT_READ: Final = Host(None, (), False, None, f"only the host code of the first {_MAX_HOSTS} libraries is read")


class Doctor:
    """Judges one file for any number of devices: what does not depend on the device is read once."""

    def __init__(self, node: Node, *, limit: int, model: ModelFacts | None = None, model_name: str | None = None) -> None:
        self.node = node
        self.limit = limit
        self.reader = FactsReader(limit, node.size)
        self.model, self.model_name = (model, model_name) if model is not None else model_inside(node)
        self.pairs = list(payloads_below(node))
        self._hosts: dict[str, Host] = {}

    def judge(self, environment: Environment) -> FileVerdict:
        """The verdict for one device and driver; without a driver for any that fits both the device and the file."""
        environment = heard(environment, [node for node, payload in self.pairs if payload.vendor == "amd"])
        if environment.device.vendor == "amd":
            modules = [self._judge_amd(node, payload, environment) for node, payload in self.pairs if payload.vendor == "amd"]
        else:
            modules = self._judge_nvidia(environment)
        last = None if environment.device.arch is None else last_branch(environment.device.arch)
        if environment.driver is None and last is not None and out_of_reach(needs(modules, environment), last):
            return self.judge(environment._replace(driver=driver(last)))  # the best that this GPU can get
        against = trouble(modules, environment)
        quants = () if against is not None else tuple(quant_verdicts(modules, environment))
        if against is not None:
            modules = [_failed(module, against) for module in modules]
        whole = FileVerdict(
            node=self.node,
            environment=environment,
            verdict=None,
            modules=(),
            model=self.model,
            model_name=self.model_name,
            model_quants=tuple(sorted(frozenset(quantised(self.model)))),
            quants=quants,
            needs=(),
            last_driver=last,
            trouble=against,
            mismatch=(),
            elsewhere=(),
            no_road=() if against is not None else tuple(no_roads(modules, self.model, environment)),
            cost=None,
            slowest=None,
            unread=(*_unread(self.node, some=bool(modules)), *self._problems()),
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
            host = self._host(node, [pairs[index][1] for index in indices])
            verdicts = linked([(pairs[index][1], loaded[index]) for index in indices])
            needed = self._needed(verdicts, host, environment)
            for index, verdict in zip(indices, verdicts, strict=True):
                payload = pairs[index][1]
                settled = with_stubs(node, payload, verdict, environment, host, needed, self.reader)
                arch = environment.device.arch
                suspects = () if arch is None else doubtful(settled, host, arch, needed)
                result[index] = Judged(node, payload, settled, host, suspects, needed is not None)
        return [result[index] for index in range(len(pairs))]

    def _host(self, node: Node, payloads: Sequence[Payload]) -> Host:
        if node.locator not in self._hosts:
            many = len(self._hosts) >= _MAX_HOSTS
            self._hosts[node.locator] = _NOT_READ if many else self._read_host(node, payloads)
        return self._hosts[node.locator]

    def _read_host(self, node: Node, payloads: Sequence[Payload]) -> Host:
        """The host code of one file; from what its images hold, whatever device is asked for."""
        names = frozenset[str]().union(*(self.names(node, payload) for payload in payloads))
        host = host_of(node, names, frozenset(arch_of(image) for payload in payloads for image in payload.images))
        registration = host.registration
        if registration is None or not registration.unknown:
            return host
        rest = registration.unknown & self._everywhere(node, payloads)
        found = registration._replace(kernels=registration.kernels | rest, unknown=registration.unknown - rest)
        return host._replace(registration=found)

    def _everywhere(self, node: Node, payloads: Sequence[Payload]) -> frozenset[str]:
        """The kernels of all images of a file."""
        assert node.source is not None
        images = [image for payload in payloads for image in payload.images if image.kind in ("sass", "ptx") and image.readable]
        return frozenset[str]().union(*(self.reader.names(node.source, image) or () for image in images))

    def names(self, node: Node, payload: Payload) -> frozenset[str]:
        """The kernels of a module, whatever it loads, from the image that is fastest to read; none when there is none."""
        readable = [image for image in payload.images if image.kind in ("sass", "ptx", "hsaco") and image.readable]
        best = min(readable, key=lambda image: (image.kind == "ptx", image.size or 0), default=None)
        return frozenset() if best is None or node.source is None else self.reader.names(node.source, best) or frozenset()

    def _needed(self, verdicts: Iterable[ModuleVerdict], host: Host, environment: Environment) -> dict[str, str] | None:
        """The kernels that the model launches; None when no model is given or the host is not known."""
        arch = environment.device.arch
        if self.model is None or host.family is None or host.family.uses_arch_list or arch is None:
            return None
        names = [kernel.name for verdict in verdicts for kernel in verdict.kernels]
        return launched(names, frozenset(types_of(self.model)), host.decides_by(arch), host.family.era)

    def _judge_amd(self, node: Node, payload: Payload, environment: Environment) -> Judged:
        module = judge_amd(node, payload, environment, self.reader)
        return Judged(node, payload, module, Host(None, (), False, None, "AMD host code is not read"))


def _unread(node: Node, *, some: bool) -> Iterator[Diagnostic]:
    """What could not be read of a file. Packed members of another kind count only where nothing else is there to judge (``some``)."""
    for item in all_diagnostics(node):
        if item.level == "error" or (item.field == NOT_READ and (not some or item.locator == node.locator)):
            yield item


def with_modules(found: FileVerdict, modules: Sequence[Judged]) -> FileVerdict:
    """The same verdict over some of the modules: all, or those of one library of several."""
    costs = [(module.verdict.cost, module) for module in modules if module.verdict.verdict in (JIT, STUB) and module.verdict.cost]
    chosen = found._replace(modules=tuple(modules), elsewhere=tuple(_elsewhere(modules)))
    return chosen._replace(
        verdict=max((module.verdict.verdict for module in chosen.here), key=SEVERITY.index, default=None),
        needs=tuple(needs(modules, found.environment)),
        mismatch=tuple(module for module in modules if module.doubtful),
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

    libcublas has such ones for 7.x only; pruning may have emptied them. A module that was forgotten in a build lacks one generation
    and has the others.
    """
    loaded: dict[str, list[bool]] = {}
    served: dict[str, set[int]] = {}
    for module in modules:
        loaded.setdefault(module.node.locator, []).append(module.verdict.verdict in GOOD)
        served.setdefault(module.node.locator, set()).update(_majors(module))
    for module in modules:
        siblings = loaded[module.node.locator]
        lacking = module.verdict.cuda_error == NO_IMAGE and module.payload.vendor == "nvidia"
        if lacking and 2 * sum(siblings) > len(siblings) and 2 * len(_majors(module)) <= len(served[module.node.locator]):
            yield module


def _majors(module: Judged) -> frozenset[int]:
    return frozenset(arch_of(image) // 10 for image in module.payload.images)


def _failed(module: Judged, trouble: tuple[int, str]) -> Judged:
    verdict = module.verdict._replace(verdict=FAILS, cuda_error=trouble[0], outcome=None, reason=trouble[1])
    return module._replace(verdict=verdict)
