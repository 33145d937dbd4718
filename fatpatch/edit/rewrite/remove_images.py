"""Fatbins and bundles without some of their images. What stays is carried over byte for byte, of fatbins without being read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fatpatch.base.errors import UnsupportedError
from fatpatch.edit.filler import filled, stays_in_place
from fatpatch.edit.payload import bundle, fatbin
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.edit.rewrite.rewrite_modules import Change
from fatpatch.model.kinds import ModuleKind
from fatpatch.model.tree import ImageEntry, Node, Payload

KINDS = (ModuleKind.FATBIN, ModuleKind.OFFLOAD_BUNDLE)
"""The kinds of payloads that images can be taken out of."""


def thinned(node: Node, payload: Payload, dropped: Collection[ImageEntry], limit: int, *, fill: bool = False) -> Change | None:
    """The payload without ``dropped``; None when nothing of it can go. EditError when it is damaged.

    Images in one compressed block with others that stay, stay with them. ``fill``: a fatbin keeps its size, whatever leads to it.
    """
    if payload.kind == ModuleKind.FATBIN:
        return _fatbin(node, payload, {image.offset for image in dropped}, fill=fill or stays_in_place(node, payload))
    if payload.kind == ModuleKind.OFFLOAD_BUNDLE:
        return _bundle(node, payload, {image.identifier for image in dropped}, limit)
    raise UnsupportedError(f"is a {payload.kind.replace('_', ' ')}: nothing can be removed from it", locator=payload.locator)


def _fatbin(node: Node, payload: Payload, dropped: set[int], *, fill: bool) -> Change | None:
    everything = fatbin.entries_of(node.content, payload)
    entries, kept = remaining(everything, payload.images, dropped)
    gone = tuple(image for image in payload.images if image not in kept)
    if not gone:
        return None
    if fill:
        return Change(node, payload, filled(node.content, payload, everything, entries), kept, gone, filled=True)
    parts = [node.content.slice(entry.offset, entry.size) for entry in entries]
    return Change(node, payload, fatbin.contained(payload, parts), kept, gone)


def remaining(
    entries: Sequence[fatbin.EntryCopy], images: Sequence[ImageEntry], dropped: Collection[int]
) -> tuple[list[fatbin.EntryCopy], tuple[ImageEntry, ...]]:
    """The entries of a fatbin that stay when images at the offsets ``dropped`` go, and the images in them.

    An entry goes when every image in it does.
    """
    kept, rest = list[ImageEntry](), []
    for entry in entries:
        inside = [image for image in images if entry.offset <= image.offset < entry.offset + entry.header.header_size]
        if inside and all(image.offset in dropped for image in inside):
            continue
        kept += inside
        rest.append(entry)
    return rest, tuple(kept)


def _bundle(node: Node, payload: Payload, dropped: set[str | None], limit: int) -> Change | None:
    entries = [(entry.identifier, entry.data) for entry in bundle.entries_of(node.content, payload, limit) if entry.name not in dropped]
    kept = tuple(image for image in payload.images if image.identifier not in dropped)
    gone = tuple(image for image in payload.images if image.identifier in dropped)
    parts = bundle.bundled(entries, payload, limit)
    return Change(node, payload, NewPayload(payload, parts, (), bundle.ALIGNMENT), kept, gone) if gone else None
