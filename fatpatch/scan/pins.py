"""Modules named by the user: by locator and member."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.locator import escape, matches
from fatpatch.model.tree import Node, Payload

_SHOWN = 8


def pinned(modules: Sequence[tuple[Node, Payload]], pins: Sequence[str], members: Sequence[str]) -> list[tuple[Node, Payload]]:
    """The payloads, with their holders, that the user limits an edit to; EditError as ``chosen``."""
    left = set(named_locators([payload.locator for _, payload in modules], pins, members))
    return [(node, payload) for node, payload in modules if payload.locator in left]


def named_locators(locators: Sequence[str], pins: Sequence[str], members: Sequence[str]) -> list[str]:
    """Those that the user names, all where nothing is named; EditError where none is left."""
    left = list(locators)
    for word, wanted, patterns in (
        ("member", members, [f"*!{escape(member)}!*" for member in members]),
        ("module", pins, [pattern for pin in pins for pattern in (pin, f"*!{pin}")]),
    ):
        if wanted:
            left = [locator for locator in left if any(matches(locator, pattern) for pattern in patterns)]
        if not left:
            names = ", ".join(map(escape, wanted))
            raise EditError(f"no {word} with GPU code is named {names}", hint=f"the modules are: {listed_names(locators)}")
    return left


def listed_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
