"""Control flow of one kernel and the class of its body: real, a stub, empty (reference: stubs, section A).

Machine code and PTX are both brought into a ``Program``: a kind for each instruction and, for those that transfer control, where
to. The walk takes every edge that may exist, so an error makes it miss a stub, never invent one.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from fatpatch.errors import LimitError

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
CLASSES: Final = (REAL, HAS_TRAP, STUB_TRAP, STUB_GUARDED, PARTIAL, EMPTY, CALL_ONLY, UNKNOWN)

# Kinds of instructions; from _CONTROL on they end a block.
PLAIN, LOAD, EFFECT, LOAD_EFFECT = 0, 1, 2, 3
CALL_OUT, TRAP, EXIT, RETURN, BRANCH, CALL, OPAQUE = 10, 11, 12, 13, 14, 15, 16
PUSH, POP, PUSH_RETURN, INDIRECT = 20, 21, 22, 23
_CONTROL = CALL_OUT

_MAX_BLOCKS = 200_000


class Program(Protocol):
    """Instructions of one section or body: ``kinds`` has one byte each."""

    kinds: bytes

    def targets(self, at: int) -> tuple[int, ...] | None:
        """Indices of the instructions that a branch, call or push names; None when they lie elsewhere or are not known."""

    def conditional(self, at: int) -> bool:
        """Whether the instruction may let control pass to the next."""


class _Block(NamedTuple):
    """A run of instructions that ends with the first that transfers control; ``end`` is behind it."""

    start: int
    end: int
    stop: int
    next: tuple[int, ...]
    pops: bool
    call: int | None


class _Walk:
    """All blocks that can be reached from an entry."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.controls = [at for at, kind in enumerate(program.kinds) if kind >= _CONTROL]
        self.blocks: dict[int, _Block] = {}
        self.edges: dict[int, set[int]] = {}
        self.pushed: set[int] = set()
        self.returns: set[int] = set()
        self.opaque = False

    def run(self, entry: int) -> None:
        """Follow every edge; a call falls through only when its target can reach a return."""
        pending = [entry]
        settled: set[int] = set()
        while True:
            self._drain(pending)
            pending = []
            for block in self.blocks.values():
                if block.pops:
                    pending += self._link(block.start, self.pushed if block.stop != INDIRECT else self.returns)
                if block.call is not None and block.start not in settled and self._can_return(block.call):
                    settled.add(block.start)
                    pending += self._link(block.start, {block.end})
            if not pending:
                return

    def _drain(self, pending: list[int]) -> None:
        while pending:
            start = pending.pop()
            if start in self.blocks:
                continue
            if len(self.blocks) >= _MAX_BLOCKS:
                raise LimitError(f"more than {_MAX_BLOCKS} blocks in one kernel", field="code")
            block = self._block(start)
            self.blocks[start] = block
            self.edges[start] = set()
            pending += self._link(start, set(block.next))

    def _link(self, start: int, targets: set[int]) -> list[int]:
        new = targets - self.edges[start]
        self.edges[start] |= new
        return [target for target in new if target not in self.blocks]

    def _block(self, start: int) -> _Block:
        from bisect import bisect_left

        program = self.program
        size = len(program.kinds)
        index = bisect_left(self.controls, start)
        at = self.controls[index] if index < len(self.controls) else size
        if at >= size:
            self.opaque = True  # runs off the end of what is there
            return _Block(start, size, OPAQUE, (), False, None)
        kind, following = program.kinds[at], at + 1
        maybe = (following,) if program.conditional(at) else ()
        targets: tuple[int, ...] = ()
        call = None
        if kind in (BRANCH, CALL, PUSH, PUSH_RETURN):
            found = program.targets(at)
            if found is None:
                kind, maybe = (CALL_OUT, (following,)) if kind == CALL else (OPAQUE, maybe)
            elif kind == BRANCH:
                targets = found
            elif kind == CALL:
                targets, call = found, found[0]
            else:
                (self.pushed if kind == PUSH else self.returns).update(found)
                maybe = (following,)
        elif kind == CALL_OUT:
            maybe = (following,)
        elif kind == INDIRECT and not self.returns:
            kind = OPAQUE
        if kind == OPAQUE:
            self.opaque = True
        return _Block(start, following, kind, maybe + targets, kind in (POP, INDIRECT), call)

    def _can_return(self, entry: int) -> bool:
        seen, stack = {entry}, [entry]
        while stack:
            block = self.blocks.get(stack.pop())
            if block is None:
                continue
            if block.stop in (RETURN, OPAQUE):
                return True
            fresh = self.edges[block.start] - seen
            seen |= fresh
            stack += fresh
        return False

    def alive(self) -> set[int]:
        """The blocks from which an exit can be reached: the rest ends in a trap on every path."""
        before: dict[int, list[int]] = {}
        for start, targets in self.edges.items():
            for target in targets:
                before.setdefault(target, []).append(start)
        stack = [block.start for block in self.blocks.values() if block.stop in (EXIT, RETURN, OPAQUE)]
        found = set(stack)
        while stack:
            for start in before.get(stack.pop(), ()):
                if start not in found:
                    found.add(start)
                    stack.append(start)
        return found


def classify(program: Program, entry: int = 0, *, asserts: bool = False) -> str:
    """The class of the kernel whose first instruction is ``entry``.

    ``asserts``: what calls outside lead to is the assertion handler only, so a trap behind one is an assertion.
    """
    walk = _Walk(program)
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
    return HAS_TRAP if any(_has(program, block, (LOAD, LOAD_EFFECT)) for block in kept) else PARTIAL


def _has(program: Program, block: _Block, kinds: tuple[int, ...]) -> bool:
    return any(program.kinds.find(kind, block.start, block.end) >= 0 for kind in kinds)
