"""The CUDA release that a file's name promises, and that of the toolkits which made what is in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice, zip_longest
from typing import Final

from fatpatch.base.locator import file_name
from fatpatch.base.patterns import lazy_pattern
from fatpatch.hostcode.beside import libraries_beside
from fatpatch.model.kinds import ImageKind, Vendor
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.survey import survey

_CLAIM: Final = lazy_pattern(r"(?<![a-z0-9])cu(?:da)?[-_.]?(1\d|[89])(?:\.?(\d))?x?(?=[-_.+ ]|\Z)", re.IGNORECASE)
_CUDA: Final = lazy_pattern(r"\bCUDA (\d{1,2})\.(\d{1,2})")
_RUNTIME: Final = lazy_pattern(r"(?:libcudart\.so\.|cudart64_)(\d{1,3})")
_SAMPLES: Final = 6
_MOST: Final = 32
"""Modules to read where there are more libraries than samples."""

_MAX_IMAGE: Final = 8 << 20


def claimed(name: str) -> tuple[int, int | None] | None:
    """(12, 8) of ``torch-2.9+cu128-cp311...``, (12, None) of ``cupy_cuda12x``; None where a name promises no CUDA release."""
    found = _CLAIM.findall(file_name(name))
    if not found:
        return None
    major, minor = found[-1]
    return int(major), int(minor) if minor else None


def contradiction(node: Node, name: str, limit: int) -> str | None:
    """What contradicts the CUDA release in a file's name, in words; None where nothing does, or the name promises none.

    Evidence: the toolkit that a few cubins name, and the major version of the CUDA runtime that libraries import. Both are of the
    whole file: that one library was made by another toolkit contradicts nothing.
    """
    claim = claimed(name)
    if claim is None:
        return None
    major, minor = claim
    word = f"CUDA {major}" if minor is None else f"CUDA {major}.{minor}"
    made = Counter(_toolkits(node, limit))
    runtimes = set(_runtimes(node))
    if runtimes and major not in runtimes:
        return f"the name says {word}, but its libraries load the runtime of CUDA {', '.join(map(str, sorted(runtimes)))}"
    if made and all(each[0] != major for each in made):
        others = ", ".join(f"{first}.{second}" for first, second in sorted(made))
        return f"the name says {word}, but its code was compiled by CUDA {others}"
    if made and minor is not None and all(each != (major, minor) for each in made):
        others = ", ".join(f"{first}.{second}" for first, second in sorted(made))
        return f"the name says {word}, but its code was compiled by CUDA {others}"
    return None


def _toolkits(node: Node, limit: int) -> Iterator[tuple[int, int]]:
    """The toolkits that the smallest cubins of a few modules name: one module of each library before a second one of any."""
    libraries: dict[str, list[tuple[Node, Payload]]] = {}
    for holder, payload in payloads_below(node):
        if payload.vendor == Vendor.NVIDIA and holder.source is not None and any(map(_legible, payload.images)):
            libraries.setdefault(holder.locator, []).append((holder, payload))
    rounds = zip_longest(*(modules[:_SAMPLES] for modules in libraries.values()))
    for holder, payload in islice((each for row in rounds for each in row if each is not None), max(_SAMPLES, min(len(libraries), _MOST))):
        smallest = min(filter(_legible, payload.images), key=lambda image: image.size or 0)
        one: Payload = payload._replace(images=(smallest,))
        for _, reading in survey([holder._replace(members=(), payloads=(one,))], limit=limit, detail=False, jobs=1):
            if found := _CUDA.search(reading.producer or ""):
                yield int(found[1]), int(found[2])


def _legible(image: ImageEntry) -> bool:
    """A cubin whose toolkit takes little time to read."""
    return image.kind == ImageKind.SASS and image.readable and (image.size or _MAX_IMAGE) < _MAX_IMAGE


def _runtimes(node: Node) -> Iterator[int]:
    """The major versions of the CUDA runtime that libraries with GPU code import."""
    holders = {holder.locator: holder for holder, _ in payloads_below(node)}
    for holder in holders.values():
        for each in libraries_beside(holder):
            found = _RUNTIME.match(each.name)
            if found and each.imported:
                number = int(found[1])
                yield number // 10 if number >= 100 else number
