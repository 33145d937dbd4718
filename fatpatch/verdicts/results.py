"""The verdict on a file, as records: what ``doctor`` computes, remedies and renderers read."""

from __future__ import annotations

from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.model.tree import Diagnostic, ModelFacts, Node, Payload
from fatpatch.verdicts.dispatch import HostChecks
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.jit import Cost
from fatpatch.verdicts.module import COMPATIBLE, EMPTY, JIT, NATIVE, ModuleVerdict

GOOD: Final = frozenset({EMPTY, NATIVE, COMPATIBLE, JIT})


class Judged(NamedTuple):
    """One module with where it stands: ``host`` is what is known of the host code of the file that holds it.

    ``doubtful``: kernels that may compute wrong numbers (``mismatch.doubtful``). ``for_model``: its defects are those that the
    model leads to, as far as the host is known.
    """

    node: Node
    payload: Payload
    verdict: ModuleVerdict
    host: HostChecks
    doubtful: tuple[str, ...] = ()
    for_model: bool = False


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

    ``environment``: as asked for; without a driver, with the last one that drives the GPU where that is too old for the file.
    ``trouble``: (CUresult, words) when GPU and driver do not fit each other, or the driver is too old for the program.
    ``mismatch``: modules with doubtful kernels. ``elsewhere``: modules made for other generations only, among others that load.
    ``for_linkers``: modules that a linker takes, not the driver, and those without any kernel.
    ``hidden``: what stands against the file besides ``trouble``, in words.
    ``libraries``: of an archive or package each library by itself; ``alternatives``: groups of those of which a program loads one, and
    ``chosen``: of those the ones that a program of the CUDA release that was asked for loads. ``counted``: those by which the file is
    judged, and ``outcome`` what comes of them (``outcome.decided``); both are empty where there is one library. ``unneeded``: those that
    lack code for the device and that the package does not need there.
    ``unsupported_types``: (tensor type of the model, why the program cannot run it). ``cost``: of all PTX that is compiled.
    ``incomplete``: what of a folder of kernel libraries is missing for the device.
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
    trouble: tuple[int | None, str] | None
    mismatch: tuple[Judged, ...]
    elsewhere: tuple[Judged, ...]
    unsupported_types: tuple[tuple[str, str], ...]
    cost: Cost | None
    slowest: Judged | None
    unread: tuple[Diagnostic, ...]
    for_linkers: tuple[Judged, ...] = ()
    hidden: str = ""
    libraries: tuple[FileVerdict, ...] = ()
    alternatives: tuple[tuple[FileVerdict, ...], ...] = ()
    chosen: tuple[FileVerdict, ...] = ()
    counted: tuple[FileVerdict, ...] = ()
    outcome: str = ""
    unneeded: tuple[FileVerdict, ...] = ()
    incomplete: str = ""

    @property
    def here(self) -> tuple[Judged, ...]:
        """The modules that count on this device: all but those elsewhere and those for linkers."""
        away = frozenset(map(id, (*self.elsewhere, *self.for_linkers)))
        if not away:
            return self.modules
        return tuple(module for module in self.modules if id(module) not in away)

    @property
    def judged_by(self) -> tuple[Judged, ...]:
        """The modules that count: of several libraries those of the ones by which the file is judged."""
        return tuple(module for unit in self.counted for module in unit.here) if self.libraries else self.here

    @property
    def missing_kernels(self) -> tuple[str, ...]:
        """Kernels that host code registers for sure and no image of its file holds: launching one is error 500.

        Not of a file that was slimmed for this device: what its other images held alone was never loaded here.
        """
        target = self.environment.device.target
        kept = [node.locator for node in (self.node, *self.node.members) if node.slimmed is not None and target in node.slimmed.targets]
        starts = tuple(f"{each}!" for each in kept)
        modules = [module for module in self.modules if not module.payload.locator.startswith(starts)] if starts else self.modules
        found = {id(module.host): module.host.registration for module in modules}
        return tuple(sorted({name for each in found.values() if each is not None and each.proven for name in each.unknown}))
