"""What loading looks at in the bytes of an image, whatever the device: each image is opened once for all of them."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Place, Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.gpucode.seen import SeenBodies
from fatpatch.model.kinds import ImageKind
from fatpatch.model.tree import ImageEntry
from fatpatch.verdicts.ptx_result import PtxOutline, outline

_HEAD = 64
_KEPT = frozenset({"sass", "ptx"})


class ImageOutline(NamedTuple):
    """The first bytes of an image, its size, and of PTX what its compiler looks at."""

    head: bytes
    size: int
    text: PtxOutline | None

    @property
    def elf(self) -> bool:
        """Whether it starts as an ELF file."""
        return self.head.startswith(n.ELF_MAGIC)


class ImageContent(NamedTuple):
    """The outline of an image; its bytes and its text are there only when it was opened just now."""

    outline: ImageOutline
    data: bytes | None = None
    text: PtxText | None = None


class OpenedImages:
    """The outlines of the images of one file that were opened so far; ``seen``: what was found in their bodies."""

    def __init__(self, seen: SeenBodies | None = None) -> None:
        self.seen = seen or SeenBodies()
        self._outlines: dict[Place, ImageOutline] = {}

    def known(self, source: Source, image: ImageEntry) -> ImageContent | None:
        """What is known of an image that was opened before."""
        found = self._outlines.get(source.place(image.offset))
        return None if found is None else ImageContent(found)

    def adopt(self, source: Source, image: ImageEntry, outline: ImageOutline) -> None:
        """Remember an image that another process has opened."""
        self._outlines[source.place(image.offset)] = outline

    def opened(self, source: Source, image: ImageEntry, data: bytes) -> ImageContent:
        """An image with its bytes."""
        ptx = image.kind == ImageKind.PTX and data[:4] != n.ELF_MAGIC
        text = PtxText(data, self.seen) if ptx else None
        found = ImageOutline(data[:_HEAD], len(data), None if text is None else outline(text))
        if image.kind in _KEPT:
            self._outlines[source.place(image.offset)] = found
        return ImageContent(found, data, text)
