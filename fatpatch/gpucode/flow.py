"""Control flow of one kernel and the class of its body: real, a stub, empty (reference: stubs, section A).

Machine code and PTX are both brought into a ``Instructions``: a kind for each instruction and, for those that transfer control, where
to. The walk takes every edge that may exist, so an error makes it miss a stub, never invent one.
"""

from __future__ import annotations

from typing import Final, Protocol

from fatpatch.base.errors import LimitError
from fatpatch.base.records import NamedTuple

REAL: Final = "real"
HAS_TRAP: Final = "has-trap"
STUB_TRAP: Final = "stub-trap"
STUB_GUARDED: Final = "stub-guarded"
PARTIAL: Final = "partial-nodata"
EMPTY: Final = "empty"
CALL_ONLY: Final = "callonly"
UNKNOWN: Final = "unknown"

PROVEN: Final = frozenset({STUB_TRAP})
LIKELY: Final = frozenset({STUB_GUARDED, PARTIAL})
STUBS: Final = PROVEN | LIKELY

# Kinds of instructions; from _CONTROL on they end a block.
PLAIN, LOAD, EFFECT, LOAD_EFFECT = 0, 1, 2, 3
CALL_OUT, TRAP, EXIT, RETURN, BRANCH, CALL, OPAQUE = 10, 11, 12, 13, 14, 15, 16
PUSH, POP, PUSH_RETURN, INDIRECT = 20, 21, 22, 23
_CONTROL = CALL_OUT

_MAX_BLOCKS = 500_000
_POPPED, _RETURNED = -1, -2  # where pops and indirect returns lead: to every place that was pushed


class BlockBudget:
    """How many blocks all kernels of one image may have together: hostile code can make each of them walk all."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _MAX_BLOCKS

    def spend(self) -> None:
        """Take one block; LimitError when none is left."""
        self.left -= 1
        if self.left < 0:
            raise LimitError(f"more than {_MAX_BLOCKS} blocks in the kernels of one image", field="code")


class Instructions(Protocol):
    """Instructions of one section or body: ``kinds`` has one byte each, ``controls`` the numbers of those that transfer control."""

    kinds: bytes
    controls: list[int]

    def targets(self, at: int) -> tuple[int, ...] | None:
        """Indices of the instructions that a branch, call or push names; None when they lie elsewhere or are not known."""

    def conditional(self, at: int) -> bool:
        """Whether the instruction may let control pass to the next."""

    def stores_parameter(self, start: int, end: int) -> bool:
        """Whether some instruction of [start, end) stores what another of them has read from the parameters."""


class CodeSection(Instructions, Protocol):
    """A program out of machine code."""

    def index_of(self, offset: int) -> int:
        """The instruction at a byte offset."""


def controls_of(kinds: bytes) -> list[int]:
    """The numbers of the instructions that transfer control."""
    return [at for at, kind in enumerate(kinds) if kind >= _CONTROL]


class _Block(NamedTuple):
    """A run of instructions that ends with the first that transfers control; ``end`` is behind it."""

    start: int
    end: int
    stop: int


class _BlockWalk:
    """All blocks that can be reached from an entry. Every edge is added once, so the work grows with the code only.

    A call falls through only when its target can reach a return: ``returning`` are the nodes that can.
    """

    def __init__(self, program: Instructions, budget: BlockBudget) -> None:
        self.program = program
        self.budget = budget
        self.blocks: dict[int, _Block] = {}
        self.before: dict[int, list[int]] = {}
        self.callers: dict[int, list[int]] = {}
        self.pushed: dict[int, set[int]] = {_POPPED: set(), _RETURNED: set()}
        self.popping: set[int] = set()
        self.returning: set[int] = set()
        self.opaque = False
        self._pending: list[int] = []
        self._fresh: list[int] = []

    def run(self, entry: int) -> None:
        """Follow every edge."""
        self._pending.append(entry)
        while self._pending or self._fresh:
            if self._fresh:
                self._spread(self._fresh.pop())
            else:
                self._visit(self._pending.pop())

    def _visit(self, node: int) -> None:
        if node in self.blocks or node in self.popping:
            return
        if node < 0:
            self.popping.add(node)
            for target in self.pushed[node]:
                self._edge(node, target)
            return
        self.budget.spend()
        self._block(node)

    def _edge(self, start: int, target: int) -> None:
        self.before.setdefault(target, []).append(start)
        self._pending.append(target)
        if target in self.returning:
            self._returns(start)

    def _returns(self, node: int) -> None:
        if node not in self.returning:
            self.returning.add(node)
            self._fresh.append(node)

    def _spread(self, node: int) -> None:
        """A node can reach a return: so can those before it, and calls of it go on behind themselves."""
        for start in self.before.get(node, ()):
            self._returns(start)
        for caller in self.callers.get(node, ()):
            self._edge(caller, self.blocks[caller].end)

    def _block(self, start: int) -> None:
        from bisect import bisect_left

        program = self.program
        size = len(program.kinds)
        index = bisect_left(program.controls, start)
        at = program.controls[index] if index < len(program.controls) else size
        if at >= size:  # runs off the end of what is there
            self._stop(start, size, OPAQUE)
            return
        kind, following = program.kinds[at], at + 1
        falls = program.conditional(at)
        targets: tuple[int, ...] = ()
        if kind in (BRANCH, CALL, PUSH, PUSH_RETURN):
            found = program.targets(at)
            if found is None:
                kind = CALL_OUT if kind == CALL else OPAQUE
            elif kind in (BRANCH, CALL):
                targets = found
            else:
                self._push(_POPPED if kind == PUSH else _RETURNED, found)
                falls = True
        elif kind == INDIRECT and not self.pushed[_RETURNED]:
            kind = OPAQUE
        if kind in (POP, INDIRECT):
            targets = (_POPPED if kind == POP else _RETURNED,)
        self._stop(start, following, kind)
        for target in (*targets, *((following,) if falls or kind == CALL_OUT else ())):
            self._edge(start, target)
        if kind == CALL:
            self.callers.setdefault(targets[0], []).append(start)
            if targets[0] in self.returning:
                self._edge(start, following)

    def _stop(self, start: int, end: int, kind: int) -> None:
        self.blocks[start] = _Block(start, end, kind)
        if kind == OPAQUE:
            self.opaque = True
        if kind in (RETURN, OPAQUE):
            self._returns(start)

    def _push(self, node: int, targets: tuple[int, ...]) -> None:
        for target in targets:
            if target not in self.pushed[node]:
                self.pushed[node].add(target)
                if node in self.popping:
                    self._edge(node, target)

    def alive(self) -> set[int]:
        """The blocks from which an exit can be reached: the rest ends in a trap on every path."""
        stack = [block.start for block in self.blocks.values() if block.stop in (EXIT, RETURN, OPAQUE)]
        found = set(stack)
        while stack:
            for start in self.before.get(stack.pop(), ()):
                if start not in found:
                    found.add(start)
                    stack.append(start)
        return found


def classify(program: Instructions, entry: int = 0, *, asserts: bool = False, budget: BlockBudget | None = None) -> str:
    """The class of the kernel whose first instruction is ``entry``.

    ``asserts``: what calls outside lead to is the assertion handler only, so a trap behind one is an assertion. ``budget`` is shared
    by the kernels of an image.
    """
    walk = _BlockWalk(program, budget or BlockBudget())
    walk.run(entry)
    stops = {block.stop for block in walk.blocks.values()}
    traps, calls = TRAP in stops, bool(stops & {CALL_OUT, INDIRECT})
    effects = any(_has(program, block, (EFFECT, LOAD_EFFECT)) for block in walk.blocks.values())
    if walk.opaque:
        return (HAS_TRAP if traps else REAL) if effects else UNKNOWN
    if not traps:
        return REAL if effects else CALL_ONLY if calls else EMPTY if EXIT in stops else UNKNOWN
    if EXIT not in stops:
        return STUB_TRAP
    living = walk.alive()
    kept = [block for block in walk.blocks.values() if block.start in living]
    if asserts or any(block.stop in (CALL_OUT, INDIRECT) for block in kept):
        return HAS_TRAP
    if not any(_has(program, block, (EFFECT, LOAD_EFFECT)) for block in kept):
        return STUB_GUARDED
    if any(_has(program, block, (LOAD, LOAD_EFFECT)) for block in kept):
        return HAS_TRAP
    first, last = min(block.start for block in kept), max(block.end for block in kept)
    return HAS_TRAP if program.stores_parameter(first, last) else PARTIAL  # it fills memory with what the host gave


def _has(program: Instructions, block: _Block, kinds: tuple[int, ...]) -> bool:
    return any(program.kinds.find(kind, block.start, block.end) >= 0 for kind in kinds)
