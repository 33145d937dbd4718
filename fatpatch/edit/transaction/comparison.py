"""A tree before and after an edit, its files side by side."""

from __future__ import annotations

from collections.abc import Mapping

from fatpatch.base.records import NamedTuple
from fatpatch.model.tree import Node, Payload
from fatpatch.scan.coverage import members_below


class HostPair(NamedTuple):
    """A host file before and after."""

    old: Node
    new: Node
    moves: Mapping[int, int]
    by_offset: Mapping[int, Payload]

    @classmethod
    def of(cls, old: Node, new: Node, moves: Mapping[int, int]) -> HostPair:
        """A pair with the new fatbins by their offsets."""
        return cls(old, new, moves, {payload.offset: payload for payload in new.payloads})

    def counterpart(self, payload: Payload) -> Payload | None:
        """The fatbin at the place where this one should be now."""
        return self.by_offset.get(self.moves.get(payload.offset, payload.offset))


class TreeComparison(NamedTuple):
    """Both trees; by locator all their files, and the pairs of edited host files that are there in both."""

    old: Node
    new: Node
    olds: Mapping[str, Node]
    news: Mapping[str, Node]
    pairs: Mapping[str, HostPair]


def compared(old: Node, new: Node, moves: Mapping[str, Mapping[int, int]]) -> TreeComparison:
    """Put two trees side by side. ``moves``: by the locator of an edited host file, old to new offset of fatbins that moved."""
    olds = {node.locator: node for node in (*members_below(old), old)}
    news = {node.locator: node for node in (*members_below(new), new)}
    pairs = {where: HostPair.of(olds[where], news[where], moved) for where, moved in moves.items() if where in news}
    return TreeComparison(old, new, olds, news, pairs)
