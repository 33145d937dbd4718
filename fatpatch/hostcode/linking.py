"""What a library calls or links with, by names among its strings and imports."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.model.kinds import HOSTS, ContainerKind
from fatpatch.model.tree import Node

TORCH = (b"libtorch", b"libc10", b"torch_cuda.dll", b"c10.dll", b"torch_python")
"""Names that a PyTorch extension imports."""
_LINKER = (b"nvJitLinkAddData", b"cuLinkAddData")
_NAMES = (".dynstr", ".strtab", ".idata")
_TEXTS = (*_NAMES, ".rodata", ".data", ".rdata", ".text")


def calls_linker(node: Node) -> bool:
    """Whether a library links device code itself: by the name of a function of nvJitLink or of the driver among its strings."""
    return _occurs(node, _LINKER, _TEXTS)


def mentions(node: Node, names: Sequence[bytes]) -> bool:
    """Whether one of the names stands in the tables of imported libraries and symbols."""
    return _occurs(node, names, (*_NAMES, ".rdata") if node.container == ContainerKind.PE else _NAMES)


def _occurs(node: Node, needles: Sequence[bytes], sections: Sequence[str]) -> bool:
    if node.source is None or node.container not in HOSTS:
        return False
    parts = [part for part in node.layout.sections if part.name.startswith(tuple(sections))] or list(node.layout.segments)
    return any(node.source.find(needle, part.offset, part.offset + part.size) >= 0 for part in parts for needle in needles)
