"""Fatbins and bundles without some of their images. What stays is carried over byte for byte, of fatbins without being read."""

from __future__ import annotations

from collections.abc import Collection

from fatpatch.edits import bundle, fatbin
from fatpatch.edits.new_payload import NewPayload
from fatpatch.edits.renewal import Change
from fatpatch.errors import UnsupportedError
from fatpatch.model import Image, Node, Payload

KINDS = ("fatbin", "offload_bundle")
"""The kinds of payloads that images can be taken out of."""


def thinned(node: Node, payload: Payload, dropped: Collection[Image], limit: int) -> Change | None:
    """The payload without ``dropped``; None when nothing of it can go. EditError when it is damaged.

    Images in one compressed block with others that stay, stay with them.
    """
    if payload.kind == "fatbin":
        return _fatbin(node, payload, {image.offset for image in dropped})
    if payload.kind == "offload_bundle":
        return _bundle(node, payload, {image.identifier for image in dropped}, limit)
    raise UnsupportedError(f"is a {payload.kind.replace('_', ' ')}: nothing can be taken out of it", locator=payload.locator)


def _fatbin(node: Node, payload: Payload, dropped: set[int]) -> Change | None:
    assert node.source is not None
    kept, parts = [], []
    for entry in fatbin.entries_of(node.source, payload):
        inside = [image for image in payload.images if entry.offset <= image.offset < entry.offset + entry.header.header_size]
        if inside and all(image.offset in dropped for image in inside):
            continue
        kept += inside
        parts.append(node.source.slice(entry.offset, entry.size))
    gone = tuple(image for image in payload.images if image not in kept)
    return Change(node, payload, fatbin.contained(payload, parts), tuple(kept), gone) if gone else None


def _bundle(node: Node, payload: Payload, dropped: set[str | None], limit: int) -> Change | None:
    assert node.source is not None
    entries = [
        (entry.identifier, entry.data)
        for entry in bundle.entries_of(node.source, payload, limit)
        if entry.identifier.decode("utf-8", "backslashreplace") not in dropped
    ]
    kept = tuple(image for image in payload.images if image.identifier not in dropped)
    gone = tuple(image for image in payload.images if image.identifier in dropped)
    parts = bundle.bundled(entries, payload, limit)
    return Change(node, payload, NewPayload(payload, parts, (), bundle.ALIGNMENT), kept, gone) if gone else None
