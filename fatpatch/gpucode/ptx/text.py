"""One PTX text in parts, one for each ``.entry``: texts for neighbouring targets have many parts in common, and each is counted once.

Nothing is copied: a library has hundreds of megabytes of PTX.
"""

from __future__ import annotations

from functools import cached_property, partial
from itertools import pairwise
from typing import Final

from fatpatch.base.errors import LimitError
from fatpatch.gpucode.seen import CodeKey, PartCounts, SeenBodies, key_of

ENTRY: Final = b".entry"
FUNC: Final = b".func"
MAX_ENTRIES: Final = 100_000
_LONG = (b"div.", b"rem.", b"rcp.")  # and sqrt: operations that become many instructions
_SPARSE = 64


class PtxText:
    """The text before the first NUL of ``data``; ``ended``: whether there was one."""

    def __init__(self, data: bytes, seen: SeenBodies | None = None) -> None:
        end = data.find(b"\0")
        self.ended = end >= 0
        self.text = data[:end] if end >= 0 else data
        self.seen = seen or SeenBodies()

    @cached_property
    def entries(self) -> list[int]:
        """Where the word ``.entry`` stands, in comments or not. LimitError for too many."""
        return self._all(ENTRY, 0, len(self.text), MAX_ENTRIES)

    @cached_property
    def keys(self) -> list[CodeKey]:
        """Of what stands before, between and behind the words ``.entry``."""
        view = memoryview(self.text)
        return [key_of(view[start:end]) for start, end in pairwise([0, *self.entries, len(self.text)])]

    @cached_property
    def counts(self) -> list[PartCounts]:
        """Of the same parts."""
        edges = pairwise([0, *self.entries, len(self.text)])
        return [self.seen.counts(key, partial(self._counted, *edge)) for key, edge in zip(self.keys, edges, strict=True)]

    def functions(self) -> list[int]:
        """Where the word ``.func`` stands, in comments or not. LimitError for too many."""
        found: list[int] = []
        for start, end, counts in zip([0, *self.entries], [*self.entries, len(self.text)], self.counts, strict=True):
            if counts.functions:
                found += self._all(FUNC, start, end, MAX_ENTRIES - len(found))
        return found

    def balanced(self) -> bool:
        """Whether there are as many closing braces as opening ones, in comments or not."""
        return sum(counts.opening for counts in self.counts) == sum(counts.closing for counts in self.counts)

    def _all(self, word: bytes, start: int, end: int, most: int) -> list[int]:
        found: list[int] = []
        at = self.text.find(word, start, end)
        while at >= 0:
            if len(found) >= most:
                raise LimitError(f"more than {MAX_ENTRIES} entries or functions", field=word.decode())
            found.append(at)
            at = self.text.find(word, at + 1, end)
        return found

    def _counted(self, start: int, end: int) -> PartCounts:
        count = self.text.count
        return PartCounts(
            statements=count(b";", start, end),
            long=sum(count(word, start, end) for word in _LONG) + self._roots(start, end),
            opening=count(b"{", start, end),
            closing=count(b"}", start, end),
            functions=count(FUNC, start, end),
        )

    def _roots(self, start: int, end: int) -> int:
        """How often ``sqrt.`` occurs, by its rarest letter."""
        text, found, at = self.text, 0, start - 1
        left = (end - start) // _SPARSE
        while (at := text.find(b"q", at + 1, end)) >= 0:
            found += text.startswith(b"sqrt.", max(at - 1, start), end)
            left -= 1
            if left < 0:
                return text.count(b"sqrt.", start, end)
        return found
