"""Samples of the CUDA modules in a large wheel: its libraries' section tables and relocations, and some of their fatbins' headers.

A library in a wheel is one deflate stream. Where its modules begin when unpacked is known; where that is in the stream is estimated.
Modules are read at several places; a module that was not read is taken to be for the targets of the one beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from fatpatch.base.locator import join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.gpucode.fatbin.entry import Header
from fatpatch.gpucode.vacant import is_without_kernels
from fatpatch.model.kinds import ContainerKind, ModuleKind, Vendor
from fatpatch.model.tree import Node, Payload, Wrapper
from fatpatch.scan.entry_headers import entry_of
from fatpatch.scan.packed_library import Budget, ModulePlaces, PackedLibrary, library_of, members_of, places_of
from fatpatch.scan.packed_modules import PackedModules
from fatpatch.scan.spread import spread

_LEAST: Final = 4 << 20
"""Packed bytes of all libraries of a wheel from which on samples are taken."""

_BUDGET: Final = 4_400_000
_SMALL: Final = 64 << 10
_ENOUGH: Final = 16
FEW: Final = 6
_BETWEEN: Final = 0.25
"""Of all modules so many may lie between two that are for different targets, and so many of those that were read may differ from the one
before: else they are not in runs, and one says nothing of the next.
"""

_TRIES: Final = 60
_LOOKED_AT: Final = 64
"""Modules of a gap of which the cheapest is chosen."""

STRETCH: Final = 0.67
"""Of all modules so many may follow each other unread."""

_CENTRED: Final = 8
"""After a few modules, by so many times more one at the edge of the largest gap may cost than one in its middle, about."""

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
    nodes, count, total = [], 0, 0
    for number, (library, places) in enumerate(found):
        modules = PackedModules(library, places, budget.share(len(found) - number))
        modules.bound()
        _Sampling(modules).run()
        node = sampled_library(modules, library, places, name)
        if node is None:
            return None
        budget.left += modules.budget.left
        nodes.append(node)
        count += len(modules.read)
        total += len(modules.modules)
    if not nodes:
        return None
    root = Node(name, name, source.size, ContainerKind.ZIP, "", tuple(nodes), (), (), member_count=len(nodes))
    return SampledTree(root, count, total)


def sampled_library(modules: PackedModules, library: PackedLibrary, places: ModulePlaces, name: str) -> Node | None:
    """The library with the modules that were read, and what they stand for; None where they do not."""
    if not stand_for_all(modules):
        return None
    payloads = tuple(_payloads(modules, locator := join(name, library.name)))
    return Node(locator, library.name, library.size, ContainerKind.ELF, places.detail, (), payloads, ())


class _Sampling:
    """Which modules are read: in the largest gap between those that were, the one that costs least."""

    def __init__(self, modules: PackedModules) -> None:
        self.modules = modules
        self.count = len(modules.modules)
        self._failed = set[int]()

    def run(self) -> None:
        """Read modules until they are enough, or the budget is spent."""
        self.modules.seek(0, jump=False)
        for _ in range(_TRIES):
            index = self._next()
            if index is None:
                return
            if self.modules.seek(index):
                self._failed.clear()  # what was read shows better where the others lie
            else:
                self._failed.add(index)

    def _next(self) -> int | None:
        """The module to read next; None when enough are read, or what is left is too little for any."""
        read = {index: targets_of(headers) for index, headers in self.modules.read.items() if has_kernels(headers)}
        known = [-1, *sorted(read), self.count]
        best, least = None, float("inf")
        largest = max(high - low for low, high in pairwise(known)) if len(read) >= FEW else 0
        centred = _CENTRED if largest else 1
        enough = len(read) >= _ENOUGH and largest - 1 <= STRETCH * self.count
        for low, high in pairwise(known):
            differ = low >= 0 and high < self.count and read[low] != read[high]
            inside = [index for index in range(low + 1, high) if index not in self._failed and index not in self.modules.read]
            if not inside or (not differ and (enough or high - low < largest)):
                continue
            middle, step = inside[len(inside) // 2], max(len(inside) // _LOOKED_AT, 1)
            for index in inside[::step]:
                cost = self.modules.cost(index)
                score = cost * (1 + centred * abs(index - middle) / len(inside)) / (len(inside) * (4 if differ else 1)) ** 0.5
                if score < least and cost < 2 * self.modules.budget.left:
                    best, least = index, score
        return best


def targets_of(headers: Sequence[Header]) -> frozenset[tuple[str, str]]:
    """Kind and target of each image."""
    return frozenset((each.kind, each.target) for each in (entry_of(header, "", 0) for header in headers))


def has_kernels(headers: Sequence[Header]) -> bool:
    """Whether an image of a module can have a kernel."""
    return not is_without_kernels(_payload(headers, "", 0))


def stand_for_all(modules: PackedModules) -> bool:
    """Whether what was read is enough to say what the rest is."""
    if len(modules.read) == len(modules.modules):
        return True
    full = {index: targets_of(headers) for index, headers in sorted(modules.read.items()) if has_kernels(headers)}
    if not full or not modules.met <= frozenset().union(*full.values()):
        return False
    changes = [high - low - 1 for low, high in pairwise(full) if full[low] != full[high]]
    if sum(changes) > _BETWEEN * len(modules.modules) or (len(changes) > 1 and len(changes) > _BETWEEN * len(full)):
        return False
    stretch = max(high - low - 1 for low, high in pairwise([-1, *full, len(modules.modules)]))
    if len(full) >= FEW and stretch > STRETCH * len(modules.modules):
        return False
    return len(full) >= FEW or 2 * len(modules.read) > len(modules.modules)


def _payloads(modules: PackedModules, locator: str) -> list[Payload]:
    """All modules: those that were read, and for each other the nearest with kernels."""
    full = [index for index, headers in modules.read.items() if has_kernels(headers)]
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
