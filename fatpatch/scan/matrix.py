"""Which kernel is present for which target: the matrix, its holes, and the filters on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from fatpatch.model.target import target_key
from fatpatch.model.tree import ImageEntry

if TYPE_CHECKING:
    from fatpatch.gpucode.rows import KernelFacts

PTX_MARK = "+"


class Matrix:
    """Kernel names against targets; a cell holds the registers a thread takes, or ``+`` where only the driver will know."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, str]] = {}
        self.targets: set[str] = set()
        self.producers: dict[str, set[str]] = {}

    def add(self, image: ImageEntry, rows: Iterable[KernelFacts], producer: str | None = None) -> None:
        """Enter the kernels of one image, and what its bytes say made it."""
        self.targets.add(image.target)
        if producer is not None:
            self.producers.setdefault(image.target, set()).add(producer)
        for row in rows:
            self.cells.setdefault(row.name, {})[image.target] = PTX_MARK if row.registers is None else str(row.registers)

    def columns(self) -> list[str]:
        """The targets in order."""
        return sorted(self.targets, key=target_key)

    def incomplete(self) -> int:
        """How many kernels lack a target that others have."""
        return sum(1 for cells in self.cells.values() if len(cells) < len(self.targets))

    def count(self) -> dict[str, int]:
        """Kernels by target."""
        counts: dict[str, int] = dict.fromkeys(self.targets, 0)
        for cells in self.cells.values():
            for target in cells:
                counts[target] += 1
        return counts

    def lacking(self, target: str) -> set[str]:
        """The kernels that have no image for ``target``."""
        return {name for name, cells in self.cells.items() if target not in cells}
