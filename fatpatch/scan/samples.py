"""Samples of the CUDA modules in a large wheel: its libraries' section tables and relocations, and some of their fatbins' headers.

A library in a wheel is one deflate stream. Where its modules begin when unpacked is known; where that is in the stream is estimated.
Modules are read at several places; a module that was not read is taken to be for the targets of the one beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from fatpatch.base.locator import join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.gpucode.fatbin.entry import Header
from fatpatch.model.kinds import ContainerKind, ModuleKind, Vendor
from fatpatch.model.tree import Node, Payload, Wrapper
from fatpatch.scan.entry_headers import entry_of
from fatpatch.scan.packed_library import Budget, ModulePlaces, PackedLibrary, library_of, members_of, places_of
from fatpatch.scan.packed_modules import PackedModules
from fatpatch.scan.seen_modules import Seen
from fatpatch.scan.spread import spread

_LEAST: Final = 4 << 20
"""Packed bytes of all libraries of a wheel from which on samples are taken."""

_BUDGET: Final = 4_800_000
_SMALL: Final = 64 << 10
_ENOUGH: Final = 16
_FEW: Final = 8
_TRIES: Final = 60
_LOOKED_AT: Final = 64
"""Modules of a gap of which the cheapest is chosen."""

_NARROW: Final = 0.2
"""Of what may follow each other unread so much may, when enough are read."""

_WIDE: Final = 0.7
"""Stretches of so much of the widest are looked at, too."""

_SECTION: Final = ".nv_fatbin"


class SampledTree(NamedTuple):
    """A tree with the modules that were read, ``sampled`` of ``modules`` in all, and those that they stand for."""

    root: Node
    sampled: int
    modules: int


def sampled(source: Source, name: str) -> SampledTree | None:
    """Samples of a wheel's CUDA code; None where it must be read whole.

    That is a small wheel or none; one whose tables or modules are not found by a few ranges; and one in which a header was seen that is in
    none of the modules that were read. AMD's code is not looked at.
    """
    members = members_of(source)
    if members.packed < _LEAST:
        return None
    budget, found = Budget(_BUDGET), []
    for index in spread([row[0] for row in members.rows]):
        row = members.rows[index]
        if row[2] < _SMALL:
            continue
        library = library_of(source, row, budget)
        places = None if library is None else places_of(library, budget)
        if library is None or places is None:
            return None
        if places.modules:
            found.append((library, places))
    samples = sampled_libraries(found, budget, name, _read)
    if samples is None or not samples.nodes:
        return None
    root = Node(name, name, source.size, ContainerKind.ZIP, "", samples.nodes, (), (), member_count=len(samples.nodes))
    return SampledTree(root, samples.read, samples.modules)


class LibrarySamples(NamedTuple):
    """Libraries with the modules that were read, ``read`` of ``modules`` in all, and those that they stand for."""

    nodes: tuple[Node, ...]
    read: int
    modules: int


Reading = Callable[[PackedLibrary, ModulePlaces, Budget], PackedModules | None]
"""Reads some modules of a library; None where they do not stand for all."""


def sampled_libraries(
    found: Sequence[tuple[PackedLibrary, ModulePlaces]], budget: Budget, name: str, read: Reading
) -> LibrarySamples | None:
    """Samples of libraries, which share a budget; None where those of one do not stand for all."""
    nodes, count, total = list[Node](), 0, 0
    for number, (library, places) in enumerate(found):
        modules = read(library, places, budget.share(len(found) - number))
        if modules is None:
            return None
        budget.left += modules.budget.left
        payloads = tuple(_payloads(modules, locator := join(name, library.name)))
        nodes.append(Node(locator, library.name, library.size, ContainerKind.ELF, places.detail, (), payloads, ()))
        count += len(modules.read)
        total += len(modules.modules)
    return LibrarySamples(tuple(nodes), count, total)


def _read(library: PackedLibrary, places: ModulePlaces, budget: Budget) -> PackedModules | None:
    modules = PackedModules(library, places, budget)
    modules.bound()
    _Sampling(modules).run()
    return modules if Seen(modules).stands_for_all() else None


class _Sampling:
    """Which modules are read: in the widest stretch of those that were not, the one that costs least for what it splits off."""

    def __init__(self, modules: PackedModules) -> None:
        self.modules = modules
        self.seen = Seen(modules)
        self.count = len(modules.modules)
        self._failed = set[int]()

    def run(self) -> None:
        """Read modules until they are enough, or the budget is spent."""
        for _ in range(_TRIES):
            index = self._next()
            if index is None:
                return
            before = self.modules.progress
            self.modules.seek(index)
            if self.modules.progress != before:
                self._failed.clear()  # what was read shows better where the others lie
            else:
                self._failed.add(index)

    def _next(self) -> int | None:
        """The module to read next; None when enough are read, or what is left is too little for any."""
        known = self.seen.indices()
        stretches = list(pairwise([-1, *known, self.count]))
        widest = max(self.seen.width(low, high) for low, high in stretches)
        wanted = [each for each in stretches if self.seen.width(*each) >= widest * _WIDE]
        if len(known) >= _ENOUGH and widest <= _NARROW:
            wanted = []
        best, least = None, float("inf")
        for low, high in [*wanted, *self.seen.changes()]:
            inside = [index for index in range(low + 1, high) if index not in self._failed and self.modules.may_have_kernels(index)]
            for index in inside[:: max(len(inside) // _LOOKED_AT, 1)]:
                cost = self.modules.cost(index)
                score = cost / self._use(low, index, high)
                if score < least and cost < 2 * self.modules.budget.left:
                    best, least = index, score
        return best

    def _use(self, low: int, index: int, high: int) -> float:
        """What a module between two others is worth: the less that it leaves on one side, the less. Few modules are read one by one."""
        if self.count <= _FEW:
            return 1.0 if index == low + 1 else 0.02
        return min(self.seen.width(low, index), self.seen.width(index, high)) + 1 / self.count


def _payloads(modules: PackedModules, locator: str) -> list[Payload]:
    """All modules: those that were read, and for each other the nearest with kernels."""
    full = list(Seen(modules).full())
    found = []
    for index in range(len(modules.modules)):
        nearest = index if index in modules.read else min(full, key=lambda each: (abs(each - index), each))
        found.append(_payload(modules.read[nearest], join(locator, f"fatbin[{index}]"), index))
    return found


def _payload(headers: Sequence[Header], locator: str, index: int) -> Payload:
    return Payload(
        locator=locator,
        vendor=Vendor.NVIDIA,
        kind=ModuleKind.FATBIN,
        section=_SECTION,
        offset=index,
        size=0,
        found_by=("section",),
        images=tuple(entry_of(header, join(locator, str(number)), number) for number, header in enumerate(headers)),
        wrapper=Wrapper(1, 0),
    )
