"""What the modules of a library that were read say about the others: nothing, where they are for different targets or lie together.

Libraries have the same images in all modules, made by one command line, or in runs of modules in the order of linking: files with flags of
their own, and static libraries. A run that lies between two modules that were read is missed; so no large part of the modules, or of
their bytes, may lie there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

from fatpatch.gpucode.fatbin.entry import Header
from fatpatch.gpucode.vacant import is_without_kernels
from fatpatch.model.kinds import ModuleKind, Vendor
from fatpatch.model.tree import Payload
from fatpatch.scan.entry_headers import entry_of
from fatpatch.scan.packed_modules import PackedModules

_LEAST: Final = 4
"""Modules that are read, at least, unless they are more than half; one of them may be read in part."""

_STRETCH: Final = 0.42
_HEAVY: Final = 0.6
"""Of all modules, and of their bytes, so many may follow each other unread."""

_BETWEEN: Final = 0.25
"""Of all modules so many may lie between two that are for different targets, and so many of those that were read may differ from the one
before: else they are not in runs, and one says nothing of the next.
"""

Target = tuple[str, str]


class Seen:
    """The modules of a library that were read whole, and those that were read in part and are like them as far as that goes."""

    def __init__(self, modules: PackedModules) -> None:
        self.modules = modules
        self.count = len(modules.modules)
        self._bytes = list(accumulate((size for _, size in modules.modules), initial=0))

    def full(self) -> dict[int, tuple[Target, ...]]:
        """Kind and target of each image of the modules with kernels that were read whole, by their numbers."""
        read = sorted(self.modules.read.items())
        return {index: targets_of(headers) for index, headers in read if has_kernels(headers)}

    def indices(self) -> list[int]:
        """The numbers of the modules that count as read."""
        full = self.full()
        part = [*self.modules.begun, *self.modules.ended] if full else []
        return sorted({*full, *(index for index in part if index not in full and self._alike(index, full))})

    def _alike(self, index: int, full: dict[int, tuple[Target, ...]]) -> bool:
        """Whether a module that was read in part is like the nearest one: all but its last image, or its last half."""
        like = full[min(full, key=lambda each: abs(each - index))]
        begun, ended = targets_of(self.modules.begun.get(index, ())), targets_of(self.modules.ended.get(index, ()))
        first = begun == like[: len(begun)] and len(begun) == len(like) - 1
        last = ended == like[len(like) - len(ended) :] and 2 * len(ended) >= len(like)
        return (first or last) and len(like) > 2 and index not in self.modules.read

    def contradicted(self) -> bool:
        """Whether a module that was begun differs from all that were read whole."""
        whole = set(self.full().values())
        begun = (targets_of(headers) for headers in self.modules.begun.values())
        return any(all(each != like[: len(each)] for like in whole) for each in begun)

    def width(self, low: int, high: int) -> float:
        """How many of all modules, or of their bytes, lie between two, by what may be unread: 1 is what may just be."""
        between = self._bytes[high] - self._bytes[low + 1]
        return max((high - low - 1) / self.count / _STRETCH, between / max(self._bytes[-1], 1) / _HEAVY)

    def changes(self) -> list[tuple[int, int]]:
        """The pairs of modules that follow each other, of those that were read, and are for different targets."""
        full = self.full()
        return [(low, high) for low, high in pairwise(full) if set(full[low]) != set(full[high])]

    def agrees(self) -> bool:
        """Whether all that was met is in modules that were read, and these are for the same targets, or in runs."""
        full = self.full()
        if not full or not self.modules.met <= {target for each in full.values() for target in each} or self.contradicted():
            return False
        changes = [high - low - 1 for low, high in self.changes()]
        return sum(changes) <= _BETWEEN * self.count and (len(changes) <= 1 or len(changes) <= _BETWEEN * len(full))

    def stands_for_all(self) -> bool:
        """Whether what was read is enough to say what the rest is."""
        if not self.agrees():
            return False
        if 2 * len(self.modules.read) > self.count:
            return True
        counted = self.indices()
        widest = max(self.width(low, high) for low, high in pairwise([-1, *counted, self.count]))
        return len(counted) >= _LEAST and len(self.full()) >= _LEAST - 1 and widest <= 1


def targets_of(headers: Sequence[Header]) -> tuple[Target, ...]:
    """Kind and target of each image."""
    return tuple((each.kind, each.target) for each in (entry_of(header, "", 0) for header in headers))


def has_kernels(headers: Sequence[Header]) -> bool:
    """Whether an image of a module can have a kernel."""
    images = tuple(entry_of(header, "", index) for index, header in enumerate(headers))
    return not is_without_kernels(Payload("", Vendor.NVIDIA, ModuleKind.FATBIN, "", 0, 0, (), images))
