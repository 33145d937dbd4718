"""Control flow of one kernel and the class of its body: real, a stub, empty (reference: stubs, section A).

Machine code and PTX are both brought into a ``Instructions``: a kind for each instruction and, for those that transfer control, where
to. The walk takes every edge that may exist, so an error makes it miss a stub, never invent one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, Protocol

from fatpatch.base.errors import LimitError
from fatpatch.base.patterns import lazy_pattern

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

_WITH_TARGETS = frozenset({BRANCH, CALL, PUSH, PUSH_RETURN})
_CONTROLS = lazy_pattern(rb"[\x%02x-\xff]" % _CONTROL)
_FIRST_CHECK = 32
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
    return [found.start() for found in _CONTROLS.finditer(kinds)]


class _BlockWalk:
    """All blocks that can be reached from an entry: runs of instructions that end with the first that transfers control.

    ``blocks``: by their start the end behind that instruction, and its kind. Every edge is added once, so the work grows with the code
    only. A call falls through only when its target can reach a return: ``returning`` are the nodes that can, kept where there are calls.
    """

    def __init__(self, program: Instructions, budget: BlockBudget) -> None:
        self.program = program
        self.budget = budget
        self.blocks: dict[int, tuple[int, int]] = {}
        self.stops: set[int] = set()
        self.before: dict[int, list[int]] = {}
        self.callers: dict[int, list[int]] = {}
        self.pushed: dict[int, set[int]] = {_POPPED: set(), _RETURNED: set()}
        self.popping: set[int] = set()
        self.returning: set[int] = set()
        self._calls = program.kinds.find(CALL) >= 0
        self._pending: list[int] = []
        self._fresh: list[int] = []

    @property
    def opaque(self) -> bool:
        """Whether a path leads to where nothing is known."""
        return OPAQUE in self.stops

    def run(self, entry: int) -> bool:
        """Follow every edge. True, and the rest not followed, once a path to an exit is known that works beside one to a trap."""
        pending, fresh, blocks = self._pending, self._fresh, self.blocks
        check, trapped = _FIRST_CHECK, False
        pending.append(entry)
        while pending or fresh:
            if fresh:
                self._spread(fresh.pop())
                continue
            node = pending.pop()
            if node in blocks or node in self.popping:
                continue
            if node < 0:
                self.popping.add(node)
                for target in self.pushed[node]:
                    self._edge(node, target)
                continue
            self.budget.spend()
            self._block(node)
            if len(blocks) >= check or trapped != (TRAP in self.stops):
                check, trapped = max(check, 2 * len(blocks)), TRAP in self.stops
                if self.works_and_traps():
                    return True
        return False

    def works_and_traps(self) -> bool:
        """Whether there is a way to a trap, and blocks from which an exit can be reached load from and change global memory."""
        if TRAP not in self.stops or EXIT not in self.stops:
            return False
        kinds, loads, effects = self.program.kinds, False, False
        for start in self._living():
            block = self.blocks.get(start)
            if block is not None:
                loads = loads or kinds.find(LOAD, start, block[0]) >= 0
                effects = effects or kinds.find(EFFECT, start, block[0]) >= 0
                if (loads and effects) or kinds.find(LOAD_EFFECT, start, block[0]) >= 0:
                    return True
        return False

    def _edge(self, start: int, target: int) -> None:
        if target in self.before:
            self.before[target].append(start)
        else:
            self.before[target] = [start]
        self._pending.append(target)
        if target in self.returning:
            self._returns(start)

    def _returns(self, node: int) -> None:
        if self._calls and node not in self.returning:
            self.returning.add(node)
            self._fresh.append(node)

    def _spread(self, node: int) -> None:
        """A node can reach a return: so can those before it, and calls of it go on behind themselves."""
        for start in self.before.get(node, ()):
            self._returns(start)
        for caller in self.callers.get(node, ()):
            self._edge(caller, self.blocks[caller][0])

    def _block(self, start: int) -> None:
        program = self.program
        controls, size = program.controls, len(program.kinds)
        index = bisect_left(controls, start)
        at = controls[index] if index < len(controls) else size
        if at >= size:  # runs off the end of what is there
            self._stop(start, size, OPAQUE)
            return
        kind, following = program.kinds[at], at + 1
        falls = program.conditional(at)
        targets: tuple[int, ...] = ()
        if kind in _WITH_TARGETS:
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
        before, pending, returning = self.before, self._pending, self.returning
        for target in (*targets, following) if falls or kind == CALL_OUT else targets:
            if target in before:  # as ``_edge``: this is the hottest code there is
                before[target].append(start)
            else:
                before[target] = [start]
            pending.append(target)
            if target in returning:
                self._returns(start)
        if kind == CALL:
            self.callers.setdefault(targets[0], []).append(start)
            if targets[0] in self.returning:
                self._edge(start, following)

    def _stop(self, start: int, end: int, kind: int) -> None:
        self.blocks[start] = (end, kind)
        self.stops.add(kind)
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
        return set(self._living())

    def _living(self) -> Iterator[int]:
        stack = [start for start, (_, stop) in self.blocks.items() if stop in (EXIT, RETURN, OPAQUE)]
        found = set(stack)
        yield from stack
        while stack:
            for start in self.before.get(stack.pop(), ()):
                if start not in found:
                    found.add(start)
                    stack.append(start)
                    yield start


def classify(program: Instructions, entry: int = 0, *, asserts: bool = False, budget: BlockBudget | None = None) -> str:
    """The class of the kernel whose first instruction is ``entry``.

    ``asserts``: what calls outside lead to is the assertion handler only, so a trap behind one is an assertion. ``budget`` is shared
    by the kernels of an image.
    """
    walk = _BlockWalk(program, budget or BlockBudget())
    if walk.run(entry) or walk.works_and_traps():
        return HAS_TRAP
    stops = walk.stops
    traps, calls = TRAP in stops, bool(stops & {CALL_OUT, INDIRECT})
    effects = any(_changes(program, start, end) for start, (end, _) in walk.blocks.items())
    if walk.opaque:
        return (HAS_TRAP if traps else REAL) if effects else UNKNOWN
    if not traps:
        return REAL if effects else CALL_ONLY if calls else EMPTY if EXIT in stops else UNKNOWN
    if EXIT not in stops:
        return STUB_TRAP
    living = walk.alive()
    kept = [(start, *block) for start, block in walk.blocks.items() if start in living]
    if asserts or any(stop in (CALL_OUT, INDIRECT) for _, _, stop in kept):
        return HAS_TRAP
    if not any(_changes(program, start, end) for start, end, _ in kept):
        return STUB_GUARDED
    first, last = min(start for start, _, _ in kept), max(end for _, end, _ in kept)
    return HAS_TRAP if program.stores_parameter(first, last) else PARTIAL  # it fills memory with what the host gave


def _changes(program: Instructions, start: int, end: int) -> bool:
    """Whether an instruction of [start, end) changes global memory."""
    return program.kinds.find(EFFECT, start, end) >= 0 or program.kinds.find(LOAD_EFFECT, start, end) >= 0
