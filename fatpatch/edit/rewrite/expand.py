"""Concatenated entries (kind 0x100), which drivers up to 580 ignore, written as the plain entries that every driver reads."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fatpatch.base.errors import EditError
from fatpatch.base.records import NamedTuple
from fatpatch.base.scratch import Scratch
from fatpatch.base.source import Source
from fatpatch.edit.host.host import Options
from fatpatch.edit.payload import fatbin
from fatpatch.edit.payload.entry import CODEC_FLAGS, packed_entry
from fatpatch.edit.rewrite.rewrite_modules import Change, RewritePlan, planned
from fatpatch.formats import numbers as n
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.model.kinds import ModuleKind
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned


class ExpandRequest(NamedTuple):
    """In which modules and archive members."""

    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    host: Options = Options()
    limit: int = 128 << 20


def plan_expand(node: Node, request: ExpandRequest) -> RewritePlan:
    """Plan to write every concatenated entry as plain ones. EditError when a fatbin is damaged, or there is none."""
    everything = [(holder, payload) for holder, payload in payloads_below(node) if payload.kind == ModuleKind.FATBIN]
    if not everything:
        raise EditError("holds no fatbin", locator=node.locator, hint="concatenated entries are a matter of CUDA fatbins")
    modules, scratch = pinned(everything, request.modules, request.members), Scratch()
    changes = [
        _expanded(holder, payload, request.limit, scratch)
        for holder, payload in modules
        if any(image.within is not None for image in payload.images)
    ]
    return planned(node, modules, changes, request.host, ())


def _expanded(node: Node, payload: Payload, limit: int, scratch: Scratch) -> Change:
    reader = ImageReader(node.content, limit)
    parts: list[Source] = []
    for entry in fatbin.entries_of(node.content, payload):
        if entry.header.kind != n.KIND_CONCATENATED:
            parts.append(node.content.slice(entry.offset, entry.size))
            continue
        inside = [image for image in payload.images if entry.offset < image.offset < entry.offset + entry.header.header_size]
        _refuse_partial(node.content, entry, inside, payload)
        for image, extension in zip(inside, _extensions(node.content, entry, inside), strict=True):
            parts.append(scratch.keep(_plain(node.content, image, extension, reader.read(image))))
    return Change(node, payload, fatbin.contained(payload, parts), payload.images)


def _refuse_partial(source: Source, entry: fatbin.EntryCopy, inside: list[ImageEntry], payload: Payload) -> None:
    (count,) = struct.unpack("<I", source.read(entry.offset + entry.header.options_offset, 4))
    if count != len(inside) or not all(image.readable for image in inside):
        raise EditError(
            "is damaged, so it is not edited", locator=payload.locator, offset=entry.offset, hint="'fatpatch inspect -v' says how"
        )


def _extensions(source: Source, entry: fatbin.EntryCopy, inside: list[ImageEntry]) -> Iterator[bytes]:
    """What follows each sub-header: identifier and options, with places that count from the sub-header, as in a plain entry."""
    for image in inside:
        sub = Header._make(HEADER.unpack(source.read(image.offset, HEADER.size)))
        size = (sub.identifier_length + 8) & ~7 if sub.identifier_length else 0
        if sub.options_offset:
            (length,) = struct.unpack("<I", source.read(image.offset + HEADER.size + size + 4, 4))
            size += 8 + ((length + 8) & ~7)
        yield source.read(image.offset + HEADER.size, size)


def _plain(source: Source, image: ImageEntry, extension: bytes, data: bytes) -> bytes:
    sub = Header._make(HEADER.unpack(source.read(image.offset, HEADER.size)))
    codec = image.compression if image.compression in CODEC_FLAGS else "lz4"
    return packed_entry(sub._replace(key=0), extension, data, codec)
