"""Kernels whose code differs although nothing else that is compared does: the same names, targets and resources."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fatpatch.base.errors import FatpatchError
from fatpatch.gpucode.body_bytes import kernel_code
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.signature import without_hashes
from fatpatch.model.tree import Node

Codes = Mapping[tuple[str, str], frozenset[bytes]]
"""(kernel name without build-folder ids, target) -> digests of the bodies of that name."""


def codes_of(node: Node, limit: int) -> Codes:
    """The code of every kernel of a library. What cannot be read is left out: the diagnostics tell it."""
    reader = ImageReader(node.content, limit)
    found: dict[tuple[str, str], set[bytes]] = {}
    for payload in node.payloads:
        for image in payload.images:
            try:
                for name, code in kernel_code(image.kind, reader.read(image)):
                    digest = hashlib.blake2b(code, digest_size=16).digest()
                    found.setdefault((without_hashes(name), image.target), set()).add(digest)
            except FatpatchError:
                continue
    return {key: frozenset(digests) for key, digests in found.items()}


def differing(old: Codes, new: Codes) -> dict[str, list[str]]:
    """Kernel -> the targets on which both have it, with other code."""
    result: dict[str, list[str]] = {}
    for (kernel, target), digests in old.items():
        if new.get((kernel, target), digests) != digests:
            result.setdefault(kernel, []).append(target)
    return result
