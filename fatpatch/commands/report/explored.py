"""The rows that the script of a page shows: kernels by target, and where the bytes are. Numbers and names only."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fatpatch.api.contents import STUB, Block, Cell, Holder, LibraryFacts
from fatpatch.api.kernels import readable
from fatpatch.api.verdict import short
from fatpatch.base.words import safe
from fatpatch.model.target import target_key

_LONGEST, _BEGINNING, _BEFORE = 400, 60, 40
_MOST_TARGETS = 64
_BODIES = {None: 0, STUB: 2}
_REAL = 1

Row = list[Any]


def explored(holder: Holder) -> dict[str, Any]:
    """One file: ``kernels`` are [name, a cell for each target]; ``stored`` and ``code`` are [name, target, bytes], by index."""
    facts = holder.facts
    targets = _shown_targets(facts.targets, facts.kernels)
    place = {target: index for index, target in enumerate(targets)}
    modules: dict[str, int] = {}
    stored = [
        [modules.setdefault(_module(block), len(modules)), place[block.target], block.size]
        for block in holder.blocks
        if block.target in place
    ]
    families: dict[str, int] = {}
    code: dict[tuple[int, int], int] = {}
    kernels = []
    for shown, name in _ordered(facts.kernels):
        family = families.setdefault(_family(shown), len(families))
        cells = facts.kernels[name]
        kernels.append([shown, [_cell(cells.get(target)) for target in targets]])
        for target, cell in cells.items():
            if cell.code and target in place:
                code[family, place[target]] = code.get((family, place[target]), 0) + cell.code
    return {
        "name": safe(holder.name),
        "targets": targets,
        "kernels": kernels,
        "modules": list(map(safe, modules)),
        "stored": stored,
        "families": list(families),
        "code": [[family, target, size] for (family, target), size in code.items()],
    }


def compared(name: str, old: LibraryFacts, new: LibraryFacts) -> dict[str, Any]:
    """One file of two releases: a cell is [old, new]."""
    targets = _shown_targets(old.targets.keys() | new.targets.keys(), {**old.kernels, **new.kernels})
    nothing: Mapping[str, Cell] = {}
    kernels = []
    for shown, kernel in _ordered(old.kernels.keys() | new.kernels.keys()):
        before, after = old.kernels.get(kernel, nothing), new.kernels.get(kernel, nothing)
        kernels.append([shown, [_pair(before.get(target), after.get(target)) for target in targets]])
    return {"name": safe(name), "targets": targets, "kernels": kernels}


@functools.lru_cache(maxsize=16384)
def _module(block: Block) -> str:
    """A module by its number and by what most of its kernels are instances of."""
    families = Counter(_family(safe(readable(name), _LONGEST)) for name in block.kernels)
    most = min(families, key=lambda family: (-families[family], family), default="")
    return f"{block.module} {most}".strip()


def _shown_targets(targets: Iterable[str], kernels: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """All targets; of more than any real file has those with the most kernels."""
    listed = sorted(targets, key=target_key)
    if len(listed) <= _MOST_TARGETS:
        return listed
    counts = Counter(target for cells in kernels.values() for target in cells)
    kept = {target for target, _ in counts.most_common(_MOST_TARGETS)}
    return [target for target in listed if target in kept]


def _ordered(names: Iterable[str]) -> list[tuple[str, str]]:
    """(as shown, as it is), in the order of what people call the kernels."""
    rows = sorted(((safe(readable(name), sys.maxsize), name) for name in names), key=lambda pair: (short(pair[0]), pair))
    shown = [name for name, _ in rows]
    return [(_shortened(name, shown[max(index - 1, 0) : index + 2]), own) for index, (name, own) in enumerate(rows)]


def _shared(one: str, other: str) -> int:
    """How many characters two names begin with in common."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _shortened(name: str, around: Sequence[str]) -> str:
    """A name of at most ``_LONGEST`` characters; of a longer one the beginning, and what differs from those around it."""
    if len(name) <= _LONGEST:
        return name
    shared = max((_shared(name, other) for other in around if other != name), default=0)
    start = max(_BEGINNING, min(shared - _BEFORE, len(name) - _LONGEST + _BEGINNING))
    rest = name[start : start + _LONGEST - _BEGINNING]
    return f"{name[:_BEGINNING]}\u2026{rest}" + ("\u2026" if start + len(rest) < len(name) else "")


def _family(shown: str) -> str:
    """``mul_mat_q`` of all its instances."""
    return short(shown).partition("<")[0] or shown


def _cell(cell: Cell | None) -> Row | None:
    """Registers, shared memory, stack, code, and 1 for a real body, 2 for a stub, 0 where it is not known."""
    if cell is None:
        return None
    return [cell.registers, cell.shared, cell.local, cell.code, _BODIES.get(cell.body, _REAL)]


def _pair(old: Cell | None, new: Cell | None) -> Sequence[Row | None] | None:
    return None if old is None and new is None else [_cell(old), _cell(new)]
