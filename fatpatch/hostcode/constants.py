"""Searches in the constants of a host file: for fixed strings, each looked for once over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fatpatch.hostcode.code import HostCode, pieces

_MAX_TEXTS = 64


def find_texts(host: HostCode, needles: Iterable[bytes], *, reach: int = 64) -> dict[bytes, tuple[bytes, ...]]:
    """For each needle found, the different ends of strings from it on: up to their NUL, ``reach`` bytes behind the needle, 64 of them.

    A needle of more than 32 bytes may be missed where two pieces of 1 MiB meet.
    """
    found: dict[bytes, dict[bytes, None]] = {}
    for piece in pieces(host, host.data):
        for needle in needles:
            for at in occurrences(piece.data, needle):
                texts = found.setdefault(needle, {})
                if len(texts) == _MAX_TEXTS:
                    break
                end = at + len(needle)
                texts.setdefault(needle + piece.data[end : end + reach].split(b"\0", 1)[0])
    return {needle: tuple(texts) for needle, texts in found.items()}


def occurrences(data: bytes, needle: bytes) -> Iterator[int]:
    """Where a needle starts in some bytes."""
    at = -1
    while (at := data.find(needle, at + 1)) >= 0:
        yield at
