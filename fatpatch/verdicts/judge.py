"""The whole answer for one file on one device: every module, the host's dispatch, the model, and what it needs of the driver."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fatpatch.gpus.drivers import driver, last_branch
from fatpatch.gpus.tables import version_key
from fatpatch.hostcode.linking import calls_linker
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import ContainerKind, ImageKind, Vendor
from fatpatch.model.target import target_key
from fatpatch.model.tree import Diagnostic, ImageEntry, ModelFacts, Node, Payload
from fatpatch.scan.coverage import all_diagnostics, payloads_below
from fatpatch.verdicts.alternatives import alternatives, chosen_by
from fatpatch.verdicts.aside import elsewhere, for_linkers, lacks
from fatpatch.verdicts.beside import Needed, needed
from fatpatch.verdicts.dispatch import HostChecks, host_of
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader, arch_of, is_dead
from fatpatch.verdicts.jit import total
from fatpatch.verdicts.kernel_folders import elsewhere_than_here, with_kernel_folders
from fatpatch.verdicts.linking import linked
from fatpatch.verdicts.mismatch import doubtful
from fatpatch.verdicts.models import merged, model_inside, quant_verdicts, quantised, types_of, unsupported_types
from fatpatch.verdicts.module import EMPTY, FAILS, JIT, SEVERITY, STUB, ModuleVerdict, judge
from fatpatch.verdicts.module_amd import heard, judge_amd
from fatpatch.verdicts.nvidias import is_nvidias
from fatpatch.verdicts.optional import unneeded
from fatpatch.verdicts.outcome import best_of, decided
from fatpatch.verdicts.quants import launched
from fatpatch.verdicts.read_ahead import read_ahead
from fatpatch.verdicts.requirements import against_host, needs, out_of_reach, trouble
from fatpatch.verdicts.results import FileVerdict, Judged, Need
from fatpatch.verdicts.stubs import with_stubs

_MAX_HOSTS: Final = 64
_MAX_OPEN: Final = 32
_NOT_READ: Final = HostChecks(None, (), False, None, f"only the host code of the first {_MAX_HOSTS} libraries is read")


class Doctor:
    """Judges one file for any number of devices: what does not depend on the device is read once."""

    def __init__(self, node: Node, *, limit: int, model: ModelFacts | None = None, model_name: str | None = None) -> None:
        self.node = node
        self.limit = limit
        self.reader = FactsReader(limit, node.size)
        self.model, self.model_name = (model, model_name) if model is not None else model_inside(node)
        self.pairs = list(payloads_below(node))
        self._hosts: dict[str, HostChecks] = {}
        self._read_for: set[tuple[int | None, bool]] = set()

    def judge(self, environment: Environment) -> FileVerdict:
        """The verdict for one device and driver; without a driver for any that fits both the device and the file.

        A library is judged by what it holds and needs itself; the verdict of a file with several is made of theirs.
        """
        environment = heard(environment, [node for node, payload in self.pairs if payload.vendor == Vendor.AMD])
        if environment.device.vendor == Vendor.AMD:
            modules = [self._judge_amd(node, payload, environment) for node, payload in self.pairs if payload.vendor == Vendor.AMD]
        else:
            modules = self._judge_nvidia(environment)
        units = [self._library(group[0].node, group, environment) for group in _by_file(modules)]
        if len(units) > 1:
            units = [unit for unit in units if not _is_object(unit.node)] or units
        units = with_kernel_folders(self.node, units, environment, lambda node, own: self._one(node, own, environment))
        if units and self.node.container in _PACKAGES and all(_is_object(unit.node) for unit in units):
            linked = tuple(module for unit in units for module in unit.modules)
            return self._whole([], environment)._replace(for_linkers=linked)
        if len(units) == 1:
            return units[0]._replace(node=self.node)
        return self._whole(units, environment)

    def lacking(self, found: FileVerdict) -> list[frozenset[str]]:
        """The kernels of each module that counts and has nothing for the device, where others have."""
        counted = found.judged_by
        missing = [module for module in counted if lacks(module)]
        return [self.names(module.node, module.payload) for module in missing] if len(missing) < len(counted) else []

    def beside(self, found: FileVerdict, others: frozenset[str] = frozenset()) -> tuple[Needed, ...]:
        """The libraries that those load by which the file is judged; of alternatives only what ``--cuda`` picks."""
        grouped = {id(unit) for group in found.alternatives for unit in group} - set(map(id, found.chosen))
        nodes = [unit.node for unit in found.counted if id(unit) not in grouped]
        return needed(self.node, nodes if found.libraries else [module.node for module in found.modules[:1]], others)

    def _library(self, node: Node, modules: list[Judged], environment: Environment) -> FileVerdict:
        """The verdict of one library."""
        last = None if environment.device.arch is None else last_branch(environment.device.arch)
        if environment.driver is None and last is not None and out_of_reach(needs(modules, environment), last):
            environment = environment._replace(driver=driver(last))  # the best that this GPU can get
            judged = self._judge_nvidia(environment, only=node.locator)
            modules = judged or modules
        unhindered = self._with_modules(self._empty(node, environment, last), modules, self._links(node, modules))
        unhindered = unhindered._replace(unread=(*unhindered.unread, *self._problems(modules)))
        against = trouble(modules, environment) or against_host(node, environment)
        if against is None:
            quants = tuple(quant_verdicts(modules, environment))
            return unhindered._replace(quants=quants, unsupported_types=tuple(unsupported_types(modules, self.model, environment)))
        failed = self._with_modules(unhindered._replace(trouble=against), [_failed(module, against) for module in modules], ())
        return failed._replace(hidden=_also(unhindered))

    def _whole(self, units: Sequence[FileVerdict], environment: Environment) -> FileVerdict:
        """The verdict of a file with several libraries, or with none."""
        whole = self._empty(self.node, environment, units[0].last_driver if units else None)
        if not units:
            other = elsewhere_than_here(self.node) if environment.device.vendor == Vendor.AMD else None
            return whole if other is None else whole._replace(unread=(*whole.unread, other))
        modules = [module for unit in units for module in unit.modules]
        apart = frozenset(id(module) for unit in units for module in unit.elsewhere)
        linked = frozenset(id(module) for unit in units for module in unit.for_linkers)
        groups = [tuple(units[index] for index in group) for group in alternatives([unit.node.path for unit in units])]
        same = {unit.trouble for unit in units}
        whole = whole._replace(
            modules=tuple(modules),
            mismatch=tuple(module for module in modules if module.doubtful),
            trouble=units[0].trouble if len(same) == 1 else None,
            hidden=units[0].hidden if len(same) == 1 else "",
            elsewhere=tuple(module for module in modules if id(module) in apart),
            for_linkers=tuple(module for module in modules if id(module) in linked),
            quants=merged(quant for unit in units for quant in unit.quants),
            unsupported_types=tuple(dict.fromkeys(row for unit in units for row in unit.unsupported_types)),
            libraries=tuple(units),
            alternatives=tuple(groups),
            chosen=_chosen(groups, environment.cuda),
            unread=tuple(dict.fromkeys((*whole.unread, *(item for unit in units for item in unit.unread)))),
        )
        whole = decided(whole._replace(unneeded=() if groups else unneeded(self.node, units, self.reader)))
        counted = whole.counted
        costs = [unit.cost for unit in counted if unit.cost is not None]
        return whole._replace(
            needs=_needs_of(counted),
            verdict=max((module.verdict.verdict for module in whole.judged_by), key=SEVERITY.index, default=None),
            cost=total(costs) if costs else None,
            slowest=max((unit.slowest for unit in counted if unit.slowest is not None), key=_seconds, default=None),
        )

    def _one(self, node: Node, units: Sequence[FileVerdict], environment: Environment) -> FileVerdict:
        """The verdict of several files that are one library."""
        found = self._with_modules(self._empty(node, environment, None), [module for unit in units for module in unit.modules], ())
        return found._replace(unread=tuple(item for unit in units for item in unit.unread))

    def _empty(self, node: Node, environment: Environment, last: str | None) -> FileVerdict:
        """The verdict of a file without modules."""
        return FileVerdict(
            node=node,
            environment=environment,
            verdict=None,
            modules=(),
            model=self.model,
            model_name=self.model_name,
            model_quants=tuple(sorted(frozenset(quantised(self.model)))),
            quants=(),
            needs=(),
            last_driver=last,
            trouble=None,
            mismatch=(),
            elsewhere=(),
            unsupported_types=(),
            cost=None,
            slowest=None,
            unread=tuple(_unread(node if node.locator != self.node.locator else self.node, some=bool(self.pairs))),
        )

    def _with_modules(self, found: FileVerdict, modules: Sequence[Judged], linked: Sequence[Judged]) -> FileVerdict:
        """The same verdict over some modules, of which a linker takes those ``linked``."""
        arch = found.environment.device.arch
        taken = frozenset(map(id, linked))
        left = [module for module in modules if id(module) not in taken]
        away = () if arch is None else tuple(elsewhere(left, arch, self, picks=is_nvidias(found.node.path)))
        chosen = found._replace(modules=tuple(modules), elsewhere=away, for_linkers=tuple(linked))
        useful = [module for module in chosen.here if module.verdict.verdict != EMPTY] or modules
        costs = [(module.verdict.cost, module) for module in useful if module.verdict.verdict in (JIT, STUB) and module.verdict.cost]
        return chosen._replace(
            verdict=max((module.verdict.verdict for module in chosen.here), key=SEVERITY.index, default=None),
            needs=tuple(needs(useful, found.environment)),
            mismatch=tuple(module for module in modules if module.doubtful),
            cost=total([cost for cost, _ in costs]) if costs else None,
            slowest=max(costs, key=lambda pair: pair[0].seconds)[1] if costs else None,
        )

    def _links(self, node: Node, modules: Sequence[Judged]) -> tuple[Judged, ...]:
        return tuple(for_linkers(modules, links=lambda: calls_linker(node)))

    def _problems(self, modules: Sequence[Judged]) -> Iterator[Diagnostic]:
        """What judging could not read: of what is loaded, and beside a dead body of what may have it real."""
        for module in modules:
            dead = any(is_dead(kernel.body) for kernel in module.verdict.kernels)
            for image in module.payload.images if dead else filter(None, (module.verdict.image,)):
                if image.locator in self.reader.problems:
                    yield Diagnostic(image.locator, "error", None, self.reader.problems[image.locator])

    def read_ahead(self, environments: Iterable[Environment]) -> None:
        """Read what these GPUs load with all processors, where that is worth it; what follows is judged the same without."""
        new = [each for each in environments if not each.disable_ptx and (each.device.arch, each.force_ptx) not in self._read_for]
        self._read_for.update((each.device.arch, each.force_ptx) for each in new)
        if new:
            read_ahead([pair for pair in self.pairs if pair[1].vendor == Vendor.NVIDIA], new, self.reader)

    def _judge_nvidia(self, environment: Environment, only: str | None = None) -> list[Judged]:
        pairs = [(node, payload) for node, payload in self.pairs if payload.vendor == Vendor.NVIDIA and only in (None, node.locator)]
        self.read_ahead([environment])
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
            if node.source is not None and len(groups) > _MAX_OPEN:
                node.source.idle()
        return [result[index] for index in range(len(pairs))]

    def _host(self, node: Node, payloads: Sequence[Payload]) -> HostChecks:
        if node.locator not in self._hosts:
            many = len(self._hosts) >= _MAX_HOSTS
            self._hosts[node.locator] = _NOT_READ if many else self._read_host(node, payloads)
        return self._hosts[node.locator]

    def _read_host(self, node: Node, payloads: Sequence[Payload]) -> HostChecks:
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
        images = [
            image for payload in payloads for image in payload.images if image.kind in (ImageKind.SASS, ImageKind.PTX) and image.readable
        ]
        return frozenset[str]().union(*(self.reader.names(node.content, image) or () for image in images))

    def names(self, node: Node, payload: Payload) -> frozenset[str]:
        """The kernels of a module, from an image that was read before or is fastest to read; none when there is none."""
        readable = [image for image in payload.images if image.kind in (ImageKind.SASS, ImageKind.PTX, ImageKind.HSACO) and image.readable]
        source = node.source
        if source is None or not readable:
            return frozenset()
        best = min(readable, key=lambda image: (not self.reader.knows_names(source, image), image.kind == ImageKind.PTX, image.size or 0))
        return self.reader.names(source, best) or frozenset()

    def is_hollow(self, node: Node, image: ImageEntry) -> bool:
        """Whether most kernels of an image are stubs or empty: it was built for GPUs that it has nothing for."""
        if node.source is None or not image.readable:
            return False
        bodies = self.reader.facts(node.source, image).bodies.values()
        return 2 * sum(map(is_dead, bodies)) > len(bodies)

    def _needed(self, verdicts: Iterable[ModuleVerdict], host: HostChecks, environment: Environment) -> dict[str, str] | None:
        """The kernels that the model launches; None when no model is given or the host is not known."""
        arch = environment.device.arch
        if self.model is None or host.family is None or host.family.uses_arch_list or arch is None:
            return None
        names = [kernel.name for verdict in verdicts for kernel in verdict.kernels]
        return launched(names, frozenset(types_of(self.model)), host.decides_by(arch), host.family.era)

    def _judge_amd(self, node: Node, payload: Payload, environment: Environment) -> Judged:
        module = judge_amd(node, payload, environment, self.reader)
        if node.source is not None and len(self.pairs) > _MAX_OPEN:
            node.source.idle()
        return Judged(node, payload, module, HostChecks(None, (), False, None, "AMD host code is not read"))


def _unread(node: Node, *, some: bool) -> Iterator[Diagnostic]:
    """What could not be read of a file. Packed members of another kind count only where nothing else is there to judge (``some``)."""
    for item in all_diagnostics(node):
        if item.level == "error" or (item.field == NOT_READ and (not some or item.locator == node.locator)):
            yield item


_PACKAGES = frozenset({ContainerKind.ZIP, ContainerKind.TAR, ContainerKind.FOLDER, ContainerKind.CONTAINER_IMAGE})


def libraries(found: FileVerdict) -> list[tuple[Node, FileVerdict]]:
    """The verdict of each library of a file; of a file with one, its own, under the name of the library."""
    if found.libraries:
        return [(each.node, each) for each in found.libraries]
    return [(found.modules[0].node, found)] if found.modules else []


def _seconds(module: Judged) -> float:
    return module.verdict.cost.seconds if module.verdict.cost is not None else 0.0


def _by_file(modules: Iterable[Judged]) -> Iterable[list[Judged]]:
    """The modules of each file, in order; not held any longer than they are gone through, since a package may have 16,000 files."""
    groups: dict[str, list[Judged]] = {}
    for module in modules:
        groups.setdefault(module.node.locator, []).append(module)
    return groups.values()


def _is_object(node: Node) -> bool:
    """Whether a file is input for a linker: in a package nothing loads it."""
    return "object file" in node.detail


def _needs_of(units: Sequence[FileVerdict]) -> tuple[Need, ...]:
    """What the driver must do for all libraries that count: of each kind the most demanding."""
    found: dict[str, Need] = {}
    for need in sorted((need for unit in units for need in unit.needs), key=lambda need: version_key(need.linux), reverse=True):
        found.setdefault(need.why.rstrip("0123456789."), need)
    return tuple(sorted(found.values(), key=lambda need: version_key(need.linux), reverse=True))


def _chosen(groups: Sequence[Sequence[FileVerdict]], cuda: str | None) -> tuple[FileVerdict, ...]:
    """Of each group the library that a program of a CUDA release loads, as far as the names tell; the best of several for that release."""
    if cuda is None:
        return ()
    wanted = tuple(int(part) for part in cuda.split("."))
    found = [[group[index] for index in chosen_by(wanted, [unit.node.path for unit in group])] for group in groups]
    return tuple(best_of(each) for each in found if each)


def _also(found: FileVerdict) -> str:
    """What else stands against a library that a driver or host cannot run at all: that there is no code for the GPU, above all."""
    bad = [module for module in found.here if module.verdict.verdict == FAILS]
    useful = [module for module in found.here if module.verdict.verdict != EMPTY]
    lacking = [module for module in bad if lacks(module)]
    if not lacking:
        return ""
    if len(lacking) == len(useful):
        targets = sorted({image.target for module in lacking for image in module.payload.images}, key=target_key)
        return f"there is no code for this GPU, only for {', '.join(targets)}"
    return f"{len(lacking)} of {len(useful)} modules have no code for this GPU"


def _failed(module: Judged, trouble: tuple[int | None, str]) -> Judged:
    verdict = module.verdict._replace(verdict=FAILS, cuda_error=trouble[0], outcome=None, reason=trouble[1])
    return module._replace(verdict=verdict)
