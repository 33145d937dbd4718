"""The images of a file compressed otherwise: smaller, or so that an older driver reads them. Not one byte of code changes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from fatpatch.base.errors import EditError, FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.scratch import Scratch
from fatpatch.base.source import Source
from fatpatch.edit.filler import repacked, stays_in_place
from fatpatch.edit.host.host import Options
from fatpatch.edit.payload import bundle, fatbin
from fatpatch.edit.payload.entry import packed_entry
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.edit.rewrite.remove_images import remaining
from fatpatch.edit.rewrite.rewrite_modules import Change, RewritePlan, planned
from fatpatch.formats import numbers as n
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.fatbin.entry import HEADER
from fatpatch.gpus.drivers import first_zstd_driver
from fatpatch.model.kinds import PTX_TEXTS, BundleForm, Codec, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned
from fatpatch.scan.walk import Progress

LEVELS: dict[str, int] = {Codec.ZSTD: 22, Codec.LZ4: 12, Codec.NONE: 0}
"""The codecs, each with its highest level."""

_KINDS = PTX_TEXTS | {ImageKind.SASS}
_DEMANDING = "zstd"  # the one codec that older drivers do not read
_BUNDLE_VERSION = 2
_BUNDLE_LEVEL = 9


class RecompressRequest(NamedTuple):
    """The codec (none, lz4, zstd) and its level, and in which modules and archive members.

    ``dropped``: images of each payload, by its locator, that go at the same time. ``fill``: every fatbin keeps its place and size.
    """

    codec: str
    level: int | None = None
    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    host: Options = Options()
    limit: int = 128 << 20
    dropped: Mapping[str, tuple[ImageEntry, ...]] = MappingProxyType({})
    fill: bool = False


def plan_recompress(node: Node, request: RecompressRequest, progress: Progress | None = None) -> RewritePlan:
    """Plan to compress every image again, where that gains or an older driver is to read it. EditError when there is nothing."""
    modules, changes, notes = recompressed(node, request, progress)
    return planned(node, modules, changes, request.host, notes)


def recompressed(
    node: Node, request: RecompressRequest, progress: Progress | None = None
) -> tuple[Sequence[tuple[Node, Payload]], list[Change], list[str]]:
    """(the modules that were looked at, those that change, notes). EditError when there is nothing to compress."""
    everything = [
        (holder, payload) for holder, payload in payloads_below(node) if payload.kind in (ModuleKind.FATBIN, ModuleKind.OFFLOAD_BUNDLE)
    ]
    if not everything:
        raise EditError("holds no fatbin and no bundle: there is nothing to compress", locator=node.locator)
    changes, notes, scratch = list[Change](), list[str](), Scratch()
    modules = pinned(everything, request.modules, request.members)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (holder, payload) in enumerate(modules):
            if progress is not None:
                progress(payload.locator, done, len(modules))
            try:
                found = (_fatbin if payload.kind == ModuleKind.FATBIN else _bundle)(holder, payload, request, scratch, pool)
            except FatpatchError as error:
                notes.append(f"{error.locator or payload.locator} is left as it is: {error.message}")
                continue
            if found is not None:
                changes.append(found)
    if request.codec == Codec.LZ4 and any(payload.vendor == Vendor.AMD for _, payload in modules):
        notes.append("bundles of AMD are left as they are: their runtime reads zstd and zlib only")
    return modules, changes, [*notes, *_floor(modules, request)]


def _floor(modules: Sequence[tuple[Node, Payload]], request: RecompressRequest) -> Iterator[str]:
    """What drivers must be able to do, before and after."""
    codecs = {image.compression for _, payload in modules for image in payload.images if payload.vendor == Vendor.NVIDIA}
    if not codecs:
        return
    linux, windows = first_zstd_driver()
    if request.codec == _DEMANDING:
        was = "" if _DEMANDING in codecs else ", what was there before by any"
        yield f"zstd is read by drivers from {linux} (Windows: {windows}) on{was}; on an older one loading fails with error 200"
    elif _DEMANDING in codecs:
        yield f"before, unpacking zstd took a driver of {linux} (Windows: {windows}) or newer; what else the program needs stays"


def _fatbin(node: Node, payload: Payload, request: RecompressRequest, scratch: Scratch, pool: ThreadPoolExecutor) -> Change | None:
    source = node.content
    dropped = request.dropped.get(payload.locator, ())
    entries, kept = remaining(fatbin.entries_of(source, payload), payload.images, {image.offset for image in dropped})
    by_offset = {image.offset: image for image in payload.images}
    reader = ImageReader(source, request.limit)
    made: list[Source | None] = []
    gone = tuple(image for image in payload.images if image not in kept)
    step = 2 * (os.cpu_count() or 1)
    for start in range(0, len(entries), step):
        batch = entries[start : start + step]
        contents = [_content(reader, by_offset.get(entry.offset), request.codec) for entry in batch]
        packed = pool.map(lambda entry, data: _entry(source, entry, data, request), batch, contents)
        made += [None if new is None else scratch.keep(new) for new in packed]
    if not gone and (request.fill or stays_in_place(node, payload)):
        new = repacked(source, payload, entries, made)
        return None if new is None else Change(node, payload, new, kept, filled=True)
    if not gone and not any(made):
        return None
    parts = [source.slice(entry.offset, entry.size) if new is None else new for entry, new in zip(entries, made, strict=True)]
    return Change(node, payload, fatbin.contained(payload, parts), kept, gone)


def _content(reader: ImageReader, image: ImageEntry | None, codec: str) -> bytes | None:
    """What to compress; None for what is left alone: shared blocks, obfuscated code, kinds that a driver does not load."""
    if image is None or image.within is not None or image.kind not in _KINDS or not image.readable:
        return None
    if codec == Codec.NONE and image.compression == Codec.NONE:
        return None
    return reader.read(image)


def _entry(source: Source, entry: fatbin.EntryCopy, data: bytes | None, request: RecompressRequest) -> bytes | None:
    """The entry with its payload packed anew; None when the old one is as good.

    zstd is left for a codec that every driver reads even where that takes more room.
    """
    if data is None:
        return None
    extension = source.read(entry.offset + HEADER.size, entry.header.header_size - HEADER.size)
    new = packed_entry(entry.header, extension, data, request.codec, request.level)
    freed = request.codec == Codec.NONE or (bool(entry.header.flags & n.FLAG_ZSTD) and request.codec != _DEMANDING)
    return new if freed or len(new) < entry.size else None


def _bundle(node: Node, payload: Payload, request: RecompressRequest, scratch: Scratch, pool: ThreadPoolExecutor) -> Change | None:
    """The bundle packed by zstd, or not at all; None when that gains nothing."""
    if request.codec == Codec.LZ4 or not payload.images:
        return None
    dropped = {image.identifier for image in request.dropped.get(payload.locator, ())}
    entries = [
        (entry.identifier, entry.data) for entry in bundle.entries_of(node.content, payload, request.limit) if entry.name not in dropped
    ]
    kept = tuple(image for image in payload.images if image.identifier not in dropped)
    if request.codec == Codec.NONE:
        if payload.format != BundleForm.CCOB and not dropped:
            return None
        plain = payload._replace(format=BundleForm.PLAIN)
        parts = tuple(scratch.keep(part.read(0, part.size)) for part in bundle.bundled(entries, plain, request.limit))
    else:
        wanted = payload._replace(
            format=BundleForm.CCOB,
            version=payload.version or _BUNDLE_VERSION,
            images=tuple(image._replace(compression=Codec.ZSTD) for image in payload.images),
        )
        parts = bundle.bundled(entries, wanted, request.limit, request.level or _BUNDLE_LEVEL)
        if sum(part.size for part in parts) >= payload.size:
            return None
    gone = tuple(image for image in payload.images if image.identifier in dropped)
    return Change(node, payload, NewPayload(payload, parts, (), bundle.ALIGNMENT), kept, gone)
