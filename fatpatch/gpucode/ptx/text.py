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
_LONG = tuple(lazy_pattern(pattern) for pattern in (rb"v(?<=div)\.", rb"e(?<=re)m\.", rb"q(?<=sq)rt\.", rb"p(?<=rcp)\."))
_TRAP = lazy_pattern(rb"p(?<=trap)")
_PRINTS = b"vprintf"
_BUT_BRACES = bytes(sorted(set(range(256)) - set(b"{}")))
_PIECE = 1 << 18
_WHOLE, _EVERY, _WINDOW = 1 << 14, 1 << 11, 1 << 8
"""Statements of a part of up to 16 KiB are counted, of a larger one those in 256 bytes of every 2 KiB: their middle."""
_FIRST = (_EVERY - _WINDOW) // 2


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
        return not sum(counts.unclosed for counts in self.counts)

    def prints(self) -> bool:
        """Whether ``vprintf`` occurs anywhere."""
        return _PRINTS in self.text

    def _all(self, word: bytes, part: tuple[int, int], most: int) -> list[int]:
        found: list[int] = []
        for hit in ENDINGS[word].finditer(self.text, *part):
            if len(found) >= most:
                raise LimitError(f"more than {MAX_ENTRIES} entries or functions", field=word.decode())
            found.append(hit.end() - len(word))
        return found

    def _counted(self, start: int, end: int) -> PartCounts:
        text, size = self.text, end - start
        if size > _WHOLE:
            sample = b"".join([text[at : at + _WINDOW] for at in range(start + _FIRST, end - _WINDOW + 1, _EVERY)])
        else:
            sample = text[start:end]
        scale = size / len(sample) if sample else 1.0
        # to keep the braces alone takes less time than to count one of them
        braces = b"".join([text[at : min(at + _PIECE, end)].translate(None, _BUT_BRACES) for at in range(start, end, _PIECE)])
        return PartCounts(
            statements=round(scale * sample.count(b";")),
            long=round(scale * sum(len(word.findall(sample)) for word in _LONG)),
            unclosed=2 * braces.count(b"{") - len(braces),
            functions=len(ENDINGS[FUNC].findall(text, start, end)),
            traps=_TRAP.search(text, start, end) is not None,
        )
