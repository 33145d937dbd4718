"""One PTX text in parts, one for each ``.entry``: texts for neighbouring targets have many parts in common, and each is counted once.

Nothing is copied: a library has hundreds of megabytes of PTX.
"""

from __future__ import annotations

from functools import cached_property, partial
from itertools import pairwise
from typing import Final

from fatpatch.base.errors import LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.gpucode.ptx.read import ENDINGS, ENTRY, FUNC
from fatpatch.gpucode.seen import CodeKey, PartCounts, SeenBodies, key_of

MAX_ENTRIES: Final = 100_000
_PADDING = 16

# A pattern that starts with one letter takes half the time of a search for a word, and these letters are rare in PTX.
_DIVISIONS, _REMAINDERS = lazy_pattern(rb"v(?<=div)\."), lazy_pattern(rb"e(?<=re)m\.")
_ROOTS = lazy_pattern(rb"q(?<=sq)rt\.")
_TRAP, _RECIPROCAL = b"p", b"p."
_WITH_P = lazy_pattern(rb"p(?:(?<=trap)|(?<=rcp)\.|(?<=vp)rintf)")
"""``trap``, ``rcp.`` and ``vprintf``, each by what it has from its p on."""


class PtxText:
    """The first ``size`` bytes of ``data``, before its first NUL; ``ended``: whether there was one.

    ``text`` are these bytes, with the padding behind them where that is all that follows: so nothing is copied.
    """

    def __init__(self, data: bytes, seen: SeenBodies | None = None) -> None:
        end = data.find(b"\0")
        self.ended = end >= 0
        self.size = end if self.ended else len(data)
        padded = len(data) - self.size <= _PADDING and not data[self.size :].strip(b"\0")
        self.text = data if padded else data[:end]
        self.seen = seen or SeenBodies()

    @cached_property
    def entries(self) -> list[int]:
        """Where the word ``.entry`` stands, in comments or not. LimitError for too many."""
        return self._all(ENTRY, (0, len(self.text)), MAX_ENTRIES)

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
                found += self._all(FUNC, (start, end), MAX_ENTRIES - len(found))
        return found

    def balanced(self) -> bool:
        """Whether there are as many closing braces as opening ones, in comments or not."""
        return sum(counts.opening for counts in self.counts) == sum(counts.closing for counts in self.counts)

    def prints(self) -> bool:
        """Whether ``vprintf`` occurs anywhere."""
        return any(counts.prints for counts in self.counts)

    def _all(self, word: bytes, part: tuple[int, int], most: int) -> list[int]:
        found: list[int] = []
        for hit in ENDINGS[word].finditer(self.text, *part):
            if len(found) >= most:
                raise LimitError(f"more than {MAX_ENTRIES} entries or functions", field=word.decode())
            found.append(hit.end() - len(word))
        return found

    def _counted(self, start: int, end: int) -> PartCounts:
        text, count = self.text, self.text.count
        with_p = _WITH_P.findall(text, start, end)
        long = sum(len(word.findall(text, start, end)) for word in (_DIVISIONS, _REMAINDERS, _ROOTS))
        return PartCounts(
            statements=count(b";", start, end),
            long=long + with_p.count(_RECIPROCAL),
            opening=count(b"{", start, end),
            closing=count(b"}", start, end),
            functions=len(ENDINGS[FUNC].findall(text, start, end)),
            traps=_TRAP in with_p,
            prints=len(with_p) > with_p.count(_TRAP) + with_p.count(_RECIPROCAL),
        )
