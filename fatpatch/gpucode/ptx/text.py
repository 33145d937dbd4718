"""One PTX text in parts, one for each ``.entry``: texts for neighbouring targets have many parts in common, and each is counted once."""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from typing import Final

from fatpatch.base.errors import LimitError
from fatpatch.gpucode.seen import PartCounts, SeenBodies

ENTRY: Final = b".entry"
FUNC: Final = b".func"
MAX_ENTRIES: Final = 100_000
LONG: Final = (b"div.", b"rem.", b"sqrt.", b"rcp.")
"""Operations that become many instructions."""


class PtxText:
    """The text before the first NUL of ``data``; ``ended``: whether there was one."""

    def __init__(self, data: bytes, seen: SeenBodies | None = None) -> None:
        end = data.find(b"\0")
        self.ended = end >= 0
        self.text = data[:end] if end >= 0 else data
        self.seen = seen or SeenBodies()

    @cached_property
    def parts(self) -> list[bytes]:
        """What stands before, between and behind the words ``.entry``, in comments or not."""
        parts = self.text.split(ENTRY, MAX_ENTRIES + 1)
        if len(parts) > MAX_ENTRIES + 1:
            raise LimitError(f"more than {MAX_ENTRIES} entries", field=ENTRY.decode())
        return parts

    @cached_property
    def counts(self) -> list[PartCounts]:
        """Of each part."""
        return [self.seen.counts(part, _counted) for part in self.parts]

    def entries(self) -> list[int]:
        """Where the word ``.entry`` stands."""
        starts = list(accumulate(len(part) + len(ENTRY) for part in self.parts[:-1]))
        return [start - len(ENTRY) for start in starts]

    def functions(self) -> list[int]:
        """Where the word ``.func`` stands."""
        if sum(counts.functions for counts in self.counts) > MAX_ENTRIES:
            raise LimitError(f"more than {MAX_ENTRIES} functions", field=FUNC.decode())
        found = []
        start = 0
        for part, counts in zip(self.parts, self.counts, strict=True):
            at = -1
            for _ in range(counts.functions):
                at = part.find(FUNC, at + 1)
                found.append(start + at)
            start += len(part) + len(ENTRY)
        return found

    def balanced(self) -> bool:
        """Whether there are as many closing braces as opening ones, in comments or not."""
        return sum(counts.opening for counts in self.counts) == sum(counts.closing for counts in self.counts)


def _counted(part: bytes) -> PartCounts:
    return PartCounts(
        statements=part.count(b";"),
        long=sum(map(part.count, LONG)),
        opening=part.count(b"{"),
        closing=part.count(b"}"),
        functions=part.count(FUNC),
    )
