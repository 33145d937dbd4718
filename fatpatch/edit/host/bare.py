"""Fatbins, bundles and cubins that are files of their own: nothing points into them, so they are simply written anew."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.overlay import Overlay
from fatpatch.base.source import Source
from fatpatch.edit.host.host import HostEdit, Options
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.model.tree import Node


def edit_bare(host: Node, renewed: Sequence[NewPayload], _: Options) -> HostEdit:
    """The whole file again, with the new payloads in the places of the old ones."""
    parts: list[Source] = []
    at = grown = 0
    moves = {}
    new_sizes = {new.payload.offset: new.size for new in renewed}
    for payload in host.payloads:
        moves[payload.offset] = payload.offset + grown
        grown += new_sizes.get(payload.offset, payload.size) - payload.size
    for new in sorted(renewed, key=lambda new: new.payload.offset):
        parts += [host.content.slice(at, new.payload.offset - at), new.source()]
        at = new.payload.offset + new.payload.size
    parts.append(host.content.slice(at, host.content.size - at))
    overlay = Overlay.of(host.content, (), parts, kept=0)
    return HostEdit(overlay, {new.payload.locator: "written anew" for new in renewed}, moves)
