"""Fatbins and cubins that are files of their own: nothing points into them, so they are simply written anew."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.edits.fatbin import NewFatbin
from fatpatch.edits.host import HostEdit, HostFile, Options
from fatpatch.edits.overlay import Overlay
from fatpatch.source import Source


def edit_bare(host: HostFile, fatbins: Sequence[NewFatbin], _: Options) -> HostEdit:
    """The whole file again, with the new fatbins in the places of the old ones."""
    parts: list[Source] = []
    at = grown = 0
    moves = {}
    new_sizes = {fatbin.payload.offset: fatbin.size for fatbin in fatbins}
    for payload in host.payloads:
        moves[payload.offset] = payload.offset + grown
        grown += new_sizes.get(payload.offset, payload.size) - payload.size
    for fatbin in sorted(fatbins, key=lambda fatbin: fatbin.payload.offset):
        parts += [host.source.slice(at, fatbin.payload.offset - at), fatbin.source()]
        at = fatbin.payload.offset + fatbin.payload.size
    parts.append(host.source.slice(at, host.source.size - at))
    overlay = Overlay.of(host.source, (), parts, kept=0)
    return HostEdit(overlay, {fatbin.payload.locator: "written anew" for fatbin in fatbins}, moves)
