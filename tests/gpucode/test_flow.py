"""The control-flow walk on programs written out by hand."""

from __future__ import annotations

import pytest

from fatpatch.base.errors import LimitError
from fatpatch.gpucode import flow

LETTERS = {
    ".": flow.PLAIN, "L": flow.LOAD, "S": flow.EFFECT, "A": flow.LOAD_EFFECT, "X": flow.EXIT, "T": flow.TRAP, "R": flow.RETURN,
    "B": flow.BRANCH, "C": flow.CALL, "O": flow.CALL_OUT, "?": flow.OPAQUE, "P": flow.PUSH, "Y": flow.POP, "Q": flow.PUSH_RETURN,
    "I": flow.INDIRECT,
}  # fmt: skip


class Program:
    """One letter an instruction; ``targets`` by index; those in ``maybe`` are conditional."""

    def __init__(self, letters: str, targets: dict[int, int | None] | None = None, maybe: tuple[int, ...] = ()) -> None:
        self.kinds = bytes(LETTERS[letter] for letter in letters)
        self.controls = flow.controls_of(self.kinds)
        self._targets = targets or {}
        self._maybe = maybe

    def targets(self, at: int) -> tuple[int, ...] | None:
        target = self._targets.get(at)
        return None if target is None else (target,)

    def conditional(self, at: int) -> bool:
        return at in self._maybe

    def stores_parameter(self, start: int, end: int) -> bool:
        return False


@pytest.mark.parametrize(
    ("letters", "targets", "maybe", "expected"),
    [
        ("X", {}, (), "empty"),
        ("..S.X", {}, (), "real"),
        (".T", {}, (), "stub-trap"),
        ("ST", {}, (), "stub-trap"),  # what it stores is lost with the process
        ("BT.X", {0: 2}, (0,), "stub-guarded"),
        ("BTSX", {0: 2}, (0,), "partial-nodata"),
        ("BTLSX", {0: 2}, (0,), "has-trap"),
        ("BTAX", {0: 2}, (0,), "has-trap"),
        ("OX", {}, (), "callonly"),
        ("OT", {}, (), "stub-trap"),
        ("BOT.X", {0: 3}, (0,), "stub-guarded"),
        ("BTOX", {0: 2}, (0,), "has-trap"),  # who knows what the function outside does
        ("?", {}, (), "unknown"),
        ("S?", {}, (), "real"),
        ("BTS?", {0: 2}, (0,), "has-trap"),
        ("....", {}, (), "unknown"),  # runs off its end
        ("B", {0: 0}, (), "unknown"),  # never ends
        ("XS", {}, (), "empty"),  # behind the exit nothing counts
        ("XS", {}, (0,), "real"),
        ("CX.SR", {0: 3}, (), "real"),
        ("CX.T", {0: 3}, (), "stub-trap"),  # the callee never returns
        ("CSX.BTR", {0: 4, 4: 6}, (4,), "partial-nodata"),
        ("CCX.R", {0: 4, 1: 4}, (), "empty"),
        ("CX", {0: None}, (), "callonly"),
        ("CX.CR", {0: 3, 3: 3}, (3,), "empty"),  # recursion
        ("PY.TX", {0: 4}, (), "empty"),  # a push and a pop lead to its target
        ("P.YT", {0: 3}, (), "stub-trap"),
        ("QIT.X", {0: 4}, (), "callonly"),  # pushed return address, then a jump through a register
        ("I", {}, (), "unknown"),
        ("B.SX.T", {0: 5}, (), "stub-trap"),
        ("TX", {}, (0,), "stub-guarded"),
    ],
)
def test_classes(letters: str, targets: dict[int, int | None], maybe: tuple[int, ...], expected: str) -> None:
    assert flow.classify(Program(letters, targets, maybe)) == expected


def test_a_trap_behind_the_assertion_handler_is_an_assertion() -> None:
    program = Program("BOTSX", {0: 3}, (0,))
    assert flow.classify(program) == "partial-nodata"
    assert flow.classify(program, asserts=True) == "has-trap"


def test_entry_inside_a_section() -> None:
    assert flow.classify(Program("T.SX"), 1) == "real"


def test_too_many_blocks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_MAX_BLOCKS", 100)
    count = 200
    with pytest.raises(LimitError):
        flow.classify(Program("B" * count + "X", {index: index + 1 for index in range(count)}, tuple(range(count))))


@pytest.mark.parametrize(("second", "expected"), [("B", "has-trap"), (".", "real")])
def test_a_long_kernel_is_walked_until_it_is_decided(second: str, expected: str) -> None:
    count = 4000
    letters = f"B{second}LSXT" + "B." * count + "X"
    branches = [6 + 2 * index for index in range(count)]
    targets: dict[int, int | None] = {0: 6, 1: 5, **{at: at + 2 for at in branches}}
    budget = flow.BlockBudget()
    left = budget.left
    assert flow.classify(Program(letters, targets, (0, 1, *branches)), budget=budget) == expected
    assert (left - budget.left < 10) == (expected == "has-trap")
