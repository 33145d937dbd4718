"""Which of NVIDIA's libraries a file loads, by their names among its imports and strings.

What it imports must be there when it is loaded; what it opens by name (dlopen, LoadLibrary) when it gets there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from fatpatch.base.locator import file_name
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import CHUNK
from fatpatch.model.kinds import HOSTS, ContainerKind
from fatpatch.model.tree import Node, Section

_BASES: Final = (
    "cublasLt|cublas|cudart|nvrtc|cudnn|cufft|curand|cusparseLt|cusparse|cusolver|nccl|nvJitLink|cupti|cutensor|nvToolsExt|cufile"
    "|nvshmem_host|npp[a-z]{1,5}|nvjpeg"
)
_NAMES: Final = {
    ContainerKind.ELF: lazy_pattern(rf"lib({_BASES})\.so(?:\.\d{{1,4}}){{0,3}}(?![A-Za-z0-9_.])".encode(), re.ASCII),
    ContainerKind.PE: lazy_pattern(rf"(?<![A-Za-z0-9_])({_BASES})64_\d{{1,4}}(?:_\d)?\.dll(?![A-Za-z0-9_.])".encode(), re.ASCII),
}
_IMPORTS: Final = (".dynstr", ".idata")
_TEXTS: Final = (".rodata", ".rdata", ".data")
_EDGE: Final = 64
_MAX_BYTES: Final = 64 << 20
_MAX_NAMES: Final = 64


class Beside(NamedTuple):
    """A library that a file loads: ``cublas64_12.dll``, its base name ``cublas``, and whether it is imported or opened by name."""

    name: str
    base: str
    imported: bool


def libraries_beside(node: Node) -> tuple[Beside, ...]:
    """NVIDIA's libraries that a library or program loads, imported ones first; none for other files, and where nothing can be read."""
    if node.source is None or node.container not in HOSTS:
        return ()
    found: dict[str, Beside] = {}
    for sections, imported in ((_IMPORTS, True), (_TEXTS, node.container == ContainerKind.PE and not _has_table(node.layout.sections))):
        for part in node.layout.sections:
            if part.name.startswith(sections):
                for name, base in _names(node, part):
                    found.setdefault(name, Beside(name, base, imported))
    own = file_name(node.path).partition(".")[0].removeprefix("lib")
    kept = [each for each in found.values() if not own.startswith(each.base)]
    plain = {each.base for each in kept if not each.name.endswith(".so")}
    kept = [each for each in kept if not (each.name.endswith(".so") and each.base in plain)]  # libx.so beside libx.so.12
    return tuple(sorted(kept, key=lambda each: (not each.imported, each.name))[:_MAX_NAMES])


def _has_table(sections: tuple[Section, ...]) -> bool:
    return any(part.name.startswith(_IMPORTS) for part in sections)


def _names(node: Node, part: Section) -> Iterator[tuple[str, str]]:
    """The names in one section, without what payloads hold."""
    holes = sorted((payload.offset, payload.offset + payload.size) for payload in node.payloads)
    at, end = part.offset, part.offset + min(part.size, _MAX_BYTES)
    for low, high in [*holes, (end, end)]:
        stop = min(low, end)
        while at < stop:
            data = node.content.peek(at, min(CHUNK + _EDGE, stop - at))
            for match in _NAMES[node.container].finditer(data):
                yield match[0].decode(), match[1].decode()
            at += CHUNK
        at = max(at, high) if low < end else end
