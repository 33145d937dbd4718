"""Inflating by ISA-L, in about half of the time, where the package ``isal`` is installed. zlib has the last word.

ISA-L takes some streams for whole that zlib refuses, and words its errors differently. So zlib is asked again where ISA-L finds damage,
and where the bytes do not add up to what the archive says: answers are the same with and without.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from fatpatch.base.errors import FormatError
from fatpatch.binfmt.crc import crc_of

_WORTH: Final = 1 << 20
"""Stored bytes of a run from which on the time that its import takes is won back."""

Unpacking = Callable[[list[str]], Iterator[bytes]]
"""The pieces of a stream by one inflater; the list takes what is odd behind its end."""


class _Passed:
    """How many stored bytes were to be inflated so far."""

    __slots__ = ("stored",)

    def __init__(self) -> None:
        self.stored = 0


_PASSED: Final = _Passed()


@functools.lru_cache(maxsize=1)
def _isal() -> Any:
    """The module; None where it is not installed, or was made for other processors."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib


def quick_inflater(stored: int) -> Callable[[int], Any] | None:
    """``decompressobj`` of ISA-L, which takes ``wbits`` as zlib's; None while little was inflated, or where it is not installed."""
    _PASSED.stored += stored
    module = _isal() if _PASSED.stored >= _WORTH else None
    return None if module is None else module.decompressobj


def settled(quick: Unpacking, by_zlib: Unpacking, crc32: int | None, notes: list[str]) -> Iterator[bytes]:
    """The pieces as the quick inflater gives them, and as zlib does from where that fails.

    ``crc32``: what the bytes add up to as the archive has it; None where the stream itself says so, and the inflater has looked.
    FormatError, or zlib's own error, as zlib alone would end in.
    """
    module, done, crc, mine = _isal(), 0, 0, list[str]()
    try:
        for piece in quick(mine):
            done += len(piece)
            crc = module.crc32(piece, crc) if crc32 is not None else crc
            yield piece
    except (FormatError, module.error):
        yield from _behind(by_zlib(notes), done)
        return
    if crc32 not in (None, crc) and crc_of(by_zlib([])) != crc:
        raise FormatError("deflate data is damaged", field="data")
    notes += mine


def _behind(chunks: Iterable[bytes], done: int) -> Iterator[bytes]:
    """The bytes from ``done`` on."""
    for chunk in chunks:
        if len(chunk) > done:
            yield chunk[done:]
        done = max(done - len(chunk), 0)
