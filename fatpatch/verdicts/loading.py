"""What becomes of a module when the driver loads it: the image that it commits to and, from that image's bytes, success or error.

Reference: load rules (1,275 answers of an H100 with driver 580). The driver never falls back to another image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fatpatch.base.errors import FatpatchError, LimitError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import unpack
from fatpatch.gpucode.fatbin.driver_view import View, driver_view
from fatpatch.gpucode.ptx.text import PtxText
from fatpatch.gpus.drivers import first_zstd_cuda, last_branch
from fatpatch.gpus.selection import MEASURED_DEVICE, choose
from fatpatch.model.kinds import Codec, ImageKind, ModuleKind
from fatpatch.model.tree import ImageEntry, Payload
from fatpatch.verdicts import cubin_result as cubin_fate
from fatpatch.verdicts import ptx_result as ptx_fate
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import arch_of
from fatpatch.verdicts.load_result import (
    CRASH,
    INVALID_IMAGE,
    INVALID_PTX,
    INVALID_SOURCE,
    JIT_DISABLED,
    NO_IMAGE,
    UNKNOWN_ERROR,
    LoadResult,
)
from fatpatch.verdicts.opened import ImageContent, OpenedImages

_NVVM_MAGICS = (b"\xed\x43\x4e\x7f", b"BC\xc0\xde")
MEASURED_BRANCH: Final = "580"
_LAST_ASKED = 581  # on Windows the same branch counts one up
_MAX_LINKED, _MAX_MORE = 16, 1 << 20
_MAX_OPTIONS = 1 << 16
_OPTIONS_AT, _USUAL_HEADER = 0x14, 512
_ZSTD, _SKIPPABLE = 0xFD2FB528, 0x184D2A5

_JIT_REFUSED = LoadResult(JIT_DISABLED, None, "the environment forbids to compile it")
_LTO_REFUSED = LoadResult(NO_IMAGE, None, "code for link-time optimisation is not loaded by the driver")


class Loading(NamedTuple):
    """``image`` is what the driver commits to; ``result`` what comes of it; ``content`` what it holds when it could be unpacked.

    ``measured``: whether a real driver was asked this, or NVIDIA's rules were followed.
    """

    image: ImageEntry | None
    result: LoadResult
    reason: str
    content: ImageContent | None = None
    measured: bool = False


def load(
    source: Source, payload: Payload, environment: Environment, limit: int, view: View | None = None, opened: OpenedImages | None = None
) -> Loading:
    """Load a fatbin, a bare cubin or bare PTX; ``limit`` bounds what the chosen image may unpack to, ``view`` is the fatbin's if known.

    ``opened`` remembers images for other devices. LimitError when an image is above the limit.
    """
    opened = opened or OpenedImages()
    arch = environment.device.arch
    assert arch is not None
    if payload.kind in (ModuleKind.CUBIN, ModuleKind.PTX):
        return _bare(source, payload, environment, limit, opened)
    view = view or driver_view(source, payload.offset, payload.locator)
    measured = was_measured(environment)
    if view.error is not None:
        result = LoadResult(view.error) if isinstance(view.error, int) else LoadResult(None, view.error)
        return Loading(None, result, view.reason, measured=measured)
    listed = {image.offset: image for image in payload.images if image.within is None}
    images = [listed.get(image.offset, image) for image in view.images]
    images += [image for image in payload.images if image.within is not None]  # the choice names them as ignored
    choice = choose(images, arch, force_ptx=environment.force_ptx)
    if choice.error == NO_IMAGE and _newer_may_find(images, environment):
        return Loading(None, LoadResult(), "it is in concatenated entries, which drivers up to 580 ignore; no newer one was asked")
    if choice.error is not None and not (choice.error == NO_IMAGE and (chosen := _last_resort(view.images, arch))):
        return Loading(None, LoadResult(choice.error), choice.reason, measured=measured)
    chosen = choice.image if choice.image is not None else _last_resort(view.images, arch)
    assert chosen is not None
    raw = next(image for image in view.images if image.offset == chosen.offset)
    image = _ChosenImage(source, raw, limit, opened)
    result, content = _open(image, environment)
    if content is not None and result.good:
        result = _judge(image, content, view.images, environment)
    reason = choice.reason if choice.image is not None else f"{chosen.target} of kind {chosen.kind} is all there is"
    return Loading(chosen, result, reason, content, measured)


class _ChosenImage(NamedTuple):
    """An image to be opened."""

    source: Source
    entry: ImageEntry
    limit: int
    opened: OpenedImages

    def stored(self) -> bytes:
        """The bytes as they are stored. LimitError when they are too many."""
        entry = self.entry
        if entry.stored_bytes > self.limit:
            raise LimitError(f"is {entry.stored_bytes:#x} bytes long, more than the limit of {self.limit:#x}", locator=entry.locator)
        return self.source.peek(entry.data_offset, entry.stored_bytes)

    def unpacked(self) -> bytes:
        """The bytes as the driver gets them. FormatError or ValueError when it does not."""
        entry = self.entry
        if entry.compression == Codec.NONE:
            return self.stored()
        stored = self.source.peek(entry.data_offset, entry.stored_bytes)
        data = unpack(stored, entry.compression, entry.blob_size or 0, limit=self.limit)
        _refuse_rest(stored, entry.compression)
        return data


def _bare(source: Source, payload: Payload, environment: Environment, limit: int, opened: OpenedImages) -> Loading:
    arch = environment.device.arch
    assert arch is not None
    image = _ChosenImage(source, payload.images[0], limit, opened)
    entry = image.entry
    content = opened.known(source, entry) or opened.opened(source, entry, image.stored())
    measured = was_measured(environment)
    if content.outline.text is not None:
        result = _JIT_REFUSED if environment.disable_ptx else ptx_fate.compiled(content.outline.text, "", environment)
        return Loading(entry, result, f"{entry.target} is compiled by the driver: there is nothing else", content, measured)
    result = _cubin(image, content, environment)  # a demand for PTX changes nothing (measured)
    choice = choose([entry], arch)
    if result.good and choice.error is not None:
        return Loading(None, LoadResult(choice.error), choice.reason, None, measured)
    return Loading(entry, result, choice.reason if result.good else f"{entry.target} is all there is", content, measured)


def _cubin(image: _ChosenImage, content: ImageContent, environment: Environment, *, labelled: bool = False) -> LoadResult:
    def whole() -> bytes:
        return image.unpacked() if content.data is None else content.data

    arch = environment.device.arch
    assert arch is not None
    outline = content.outline
    return cubin_fate.loaded(outline.head, outline.size, arch, eager=whole if environment.eager else None, labelled=labelled)


def was_measured(environment: Environment) -> bool:
    """Whether the rules were asked of a driver: an H100's of branch 580, which also stands for "any driver"."""
    driver = environment.driver
    return environment.device.arch == MEASURED_DEVICE and (driver is None or driver.branch == MEASURED_BRANCH)


def _newer_may_find(images: Sequence[ImageEntry], environment: Environment) -> bool:
    """Whether a driver newer than those that were asked would find code, if it reads concatenated entries."""
    driver, arch = environment.driver, environment.device.arch
    if arch is None:
        return False
    branch = driver.branch if driver is not None else last_branch(arch)
    inside = [image._replace(within=None) for image in images if image.within is not None]
    newer = branch is None or int(branch) > _LAST_ASKED
    return newer and choose(inside, arch, force_ptx=environment.force_ptx).image is not None


def _last_resort(images: tuple[ImageEntry, ...], arch: int) -> ImageEntry | None:
    """An entry of kind 8, which counts only when there is nothing else; NVIDIA's own LTO code is then refused with 209."""
    for image in images:
        if image.kind_code == n.KIND_NVVM and 0 < arch_of(image) <= arch:
            return image
    return None


def _open(chosen: _ChosenImage, environment: Environment) -> tuple[LoadResult, ImageContent | None]:
    """The chosen entry as the driver gets it, or how it fails on the way."""
    source, image, limit, opened = chosen
    if image.kind_code == n.KIND_NVVM and not _options_offset(source, image):
        return LoadResult(None, CRASH, "an entry of this kind without an options block crashes the driver"), None
    if image.kind_code == n.KIND_NVVM and (image.flags or 0) & n.FLAG_OBFUSCATED:
        return _LTO_REFUSED, None
    if image.compression == Codec.ZSTD and environment.driver is not None and environment.driver.zstd is False:
        reason = f"it is compressed with zstd, which drivers before CUDA {first_zstd_cuda()} do not know"
        return LoadResult(INVALID_IMAGE, None, reason), None
    if (known := opened.known(source, image)) is not None:
        return LoadResult(), known
    content = open_image(source, image, limit, opened)
    return (_unpack_failure(image), None) if content is None else (LoadResult(), content)


def open_image(source: Source, image: ImageEntry, limit: int, opened: OpenedImages) -> ImageContent | None:
    """What an image of a fatbin holds; None when it cannot be unpacked. LimitError when that may be for its size alone."""
    chosen = _ChosenImage(source, image, limit, opened)
    if image.compression == Codec.NONE:
        return opened.opened(source, image, chosen.stored())
    size = image.blob_size or 0
    if not image.stored_bytes or image.data_offset + image.stored_bytes > source.size or size > _most(image):
        return None
    if max(size, image.stored_bytes) > limit:
        unpack(b"", image.compression, max(size, image.stored_bytes), limit=limit)  # perhaps not too much for the driver: LimitError
    try:
        data = chosen.unpacked()
    except (FatpatchError, ValueError):
        return None
    return opened.opened(source, image, data)


def _most(image: ImageEntry) -> int:
    """Bytes that the stored ones can at most unpack to."""
    return {Codec.ZLIB: 1032 * image.stored_bytes, Codec.ZSTD: 1 << 32}.get(image.compression, 256 * image.stored_bytes)


def _refuse_rest(stored: bytes, codec: str) -> None:
    """ValueError when other bytes follow the zstd frames, which our codec passes over and the driver does not (RFC 8878, 3.1)."""
    at = 0
    while codec == Codec.ZSTD and at < len(stored):
        magic = int.from_bytes(stored[at : at + 4], "little")
        if magic >> 4 == _SKIPPABLE:
            at += 8 + int.from_bytes(stored[at + 4 : at + 8], "little")
            continue
        if magic != _ZSTD or at + 5 > len(stored):
            raise ValueError("no zstd frame")
        descriptor = stored[at + 4]
        single = descriptor >> 5 & 1
        at += 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + (single, 2, 4, 8)[descriptor >> 6]
        last = False
        while not last:
            header = int.from_bytes(stored[at : at + 3], "little")
            if at + 3 > len(stored):
                raise ValueError("a zstd block is cut")
            last = bool(header & 1)
            at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)
        at += 4 * (descriptor >> 2 & 1)


def _unpack_failure(image: ImageEntry) -> LoadResult:
    """Measured: zstd and zlib end in 999; LZ4 in 209 for machine code and in a crash for PTX; a size from 2^63 on in 999."""
    if image.compression in (Codec.LZ4, Codec.LZ4_FRAME) and (image.blob_size or 0) < 1 << 63:
        if image.kind == ImageKind.PTX:
            return LoadResult(None, CRASH, "its LZ4 data cannot be unpacked, and the driver crashes on such PTX")
        return LoadResult(NO_IMAGE, None, "its LZ4 data cannot be unpacked, which the driver reports as a missing image")
    return LoadResult(UNKNOWN_ERROR, None, f"its {image.compression} data cannot be unpacked")


def _judge(chosen: _ChosenImage, content: ImageContent, images: tuple[ImageEntry, ...], environment: Environment) -> LoadResult:
    source, image, _, _ = chosen
    if image.kind == ImageKind.SASS:
        return _cubin(chosen, content, environment, labelled=True)
    if image.kind_code == n.KIND_NVVM:
        return _intermediate(chosen, content, environment)
    if image.kind == ImageKind.RELOCATABLE_PTX:
        return _relocatable(chosen, content, images, environment)
    if content.outline.elf:
        return LoadResult(INVALID_PTX, None, "it holds a cubin where PTX is announced")
    options = _options(source, image)
    if options is None:
        return LoadResult(None, CRASH, "its options block is missing or runs out of the header, which crashes the driver")
    if environment.disable_ptx:  # only now: what cannot be unpacked fails as ever (measured)
        return _JIT_REFUSED
    following = source.peek(image.data_offset + (image.stored_size or 0), 1) if image.compression == Codec.NONE else b""
    assert content.outline.text is not None
    return ptx_fate.compiled(content.outline.text, options, environment, following=following)


def _intermediate(chosen: _ChosenImage, content: ImageContent, environment: Environment) -> LoadResult:
    """Kind 8: code for the link-time optimiser, which the driver does not take; a cubin in it is loaded all the same."""
    head = content.outline.head
    if content.outline.elf:
        return _cubin(chosen, content, environment)
    if head.startswith(_NVVM_MAGICS) or not head.isascii():
        return _LTO_REFUSED
    return LoadResult(INVALID_IMAGE, None, "it is neither code for link-time optimisation nor a cubin")


def _relocatable(chosen: _ChosenImage, content: ImageContent, images: tuple[ImageEntry, ...], environment: Environment) -> LoadResult:
    """Kind 0x40: PTX that is linked at load time."""
    source, image, _, opened = chosen
    data = content.data
    assert data is not None
    if content.outline.elf:
        return LoadResult(NO_IMAGE, None, "it holds a cubin where relocatable PTX is announced")
    if not ptx_fate.is_ptx(data):
        return LoadResult(INVALID_IMAGE, None, "it is not PTX")
    if environment.disable_ptx:
        return _JIT_REFUSED
    others = [
        other
        for other in images
        if other.kind == ImageKind.RELOCATABLE_PTX and other.offset != image.offset and other.compression == Codec.NONE
    ]
    entries = ptx_fate.entries(data)
    for other in others[:_MAX_LINKED]:
        if entries & ptx_fate.entries(source.peek(other.data_offset, min(other.stored_bytes, len(data) + _MAX_MORE))):
            return LoadResult(INVALID_SOURCE, None, "relocatable PTX entries are linked together and define the same kernels")
    return ptx_fate.compiled(ptx_fate.outline(PtxText(data, opened.seen)), "--compile-only", environment)


def _options_offset(source: Source, image: ImageEntry) -> int:
    return int.from_bytes(source.peek(image.offset + _OPTIONS_AT, 4), "little")


def _options(source: Source, image: ImageEntry) -> str | None:
    """The option text as the driver reads it: up to a NUL, its length ignored; None when that leads out of the header."""
    header_size = image.data_offset - image.offset
    head = source.peek(image.offset, min(max(header_size, _OPTIONS_AT + 4), _USUAL_HEADER))
    at = int.from_bytes(head[_OPTIONS_AT : _OPTIONS_AT + 4], "little")
    if not at or at + 8 > header_size:
        return None
    start = int.from_bytes(head[at : at + 4] if at + 4 <= len(head) else source.peek(image.offset + at, 4), "little")
    if start == 0:
        return ""
    if start >= header_size:
        return "" if start == header_size else None
    text = head[start:header_size]
    if header_size > len(head):
        text = source.peek(image.offset + start, min(header_size - start, _MAX_OPTIONS))
    end = text.find(b"\0")
    return None if end < 0 else text[:end].decode("ascii", "backslashreplace")
