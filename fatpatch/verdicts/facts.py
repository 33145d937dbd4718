"""What judging needs to know of one image: its kernels with the class of their bodies, and how it was made. Read once for all GPUs."""

from __future__ import annotations

from typing import NamedTuple

from fatpatch.errors import FatpatchError
from fatpatch.images import flow
from fatpatch.images.bodies import cubin_bodies, encoding, kernel_code
from fatpatch.images.cubin_tables import Tables
from fatpatch.images.ptx_bodies import ptx_bodies
from fatpatch.model import Image
from fatpatch.payloads.content import ImageReader
from fatpatch.source import Source
from fatpatch.verdicts import ptx_fate
from fatpatch.verdicts.cubin_fate import unlinked
from fatpatch.verdicts.jit import Cost, cost_of


class Facts(NamedTuple):
    """``bodies``: kernel name -> class. ``unlinked``: what fails when a relocatable cubin is not linked (``cubin_fate.unlinked``).

    ``problem``: why the image cannot be read; then the rest is empty.
    """

    bodies: dict[str, str]
    toolkit: str | None = None
    cost: Cost | None = None
    unlinked: tuple[tuple[str, int], ...] = ()
    problem: str = ""


class FactsReader:
    """Facts of the images of one file, each read at most once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[tuple[int, str], Facts] = {}
        self._names: dict[tuple[int, str], frozenset[str]] = {}

    def facts(self, source: Source, image: Image, data: bytes | None = None) -> Facts:
        """Of one image; ``data`` are its bytes when they are at hand."""
        key = (source.base, image.locator)
        if key not in self._known:
            self._known[key] = self._read(source, image, data)
        return self._known[key]

    def names(self, source: Source, image: Image) -> frozenset[str]:
        """The kernel names of an image, without looking at their code; none when it cannot be read."""
        key = (source.base, image.locator)
        if key in self._known:
            return frozenset(self._known[key].bodies)
        if key not in self._names:
            try:
                from fatpatch.images.kernels import read_image

                reading = read_image(image.kind, ImageReader(source, self._limit).read(image), detail=False)
                self._names[key] = frozenset(row[0] for row in reading.kernels)
            except FatpatchError:
                self._names[key] = frozenset()
        return self._names[key]

    def _read(self, source: Source, image: Image, data: bytes | None) -> Facts:
        try:
            if data is None:
                data = ImageReader(source, self._limit).read(image)
            if image.kind == "sass" or data[:4] == b"\x7fELF":
                tables = Tables(data)
                return Facts(
                    cubin_bodies(data), tables.toolkit(), None, tuple(unlinked(tables).items()) if tables.identity.relocatable else ()
                )
            text = data.split(b"\0", 1)[0]
            loose = ptx_fate.unlinked(text).items() if ptx_fate.TO_BE_LINKED in (image.options or "") else ()
            return Facts(ptx_bodies(text), None, cost_of(text), tuple(loose))
        except FatpatchError as error:
            return Facts({}, problem=error.message)

    def messages(self, source: Source, image: Image, kernels: list[str]) -> dict[str, str]:
        """What kernels of an image print before they trap, as far as that can be told."""
        from fatpatch.images.messages import cubin_messages, ptx_messages

        try:
            data = ImageReader(source, self._limit).read(image)
            if image.kind == "sass":
                return cubin_messages(data, kernels)
            return ptx_messages(data, kernels, arch_of(image))
        except FatpatchError:
            return {}

    def shapes(self, source: Source, image: Image, kernels: list[str]) -> dict[str, str]:
        """Kernel name -> a short hash of the opcodes of its body: stubs of one image share one, real bodies do not."""
        import hashlib

        try:
            tables = Tables(ImageReader(source, self._limit).read(image))
        except FatpatchError:
            return {}
        reader = encoding(tables.identity.arch)
        if reader is None:
            return {}
        code = kernel_code(tables)
        return {name: hashlib.sha256(reader.shape(code[name])).hexdigest()[:12] for name in kernels if name in code}


def arch_of(image: Image) -> int:
    """The SM number in an image's target; 0 when there is none."""
    digits = image.target.rsplit("_", 1)[-1].rstrip("af")
    return int(digits) if digits.isdigit() else 0


def is_dead(body: str) -> bool:
    """Whether a body does nothing useful: a stub, or empty."""
    return body in flow.STUBS or body == flow.EMPTY
