"""A policy of what a release holds today: ``check --init``. It passes on that release, and fails when something is lost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fatpatch.model.target import target_key
from fatpatch.model.tree import Node, Payload

_HEAD = """\
# Written by 'fatpatch check --init': what the release holds today. Keep what you require, delete the rest.
# 'fatpatch check FILE...' finds this file by itself; 'fatpatch check --explain FP101' tells what a rule is for.

fail-on = "error"
"""
_TAIL = """
# GPUs that must run every file, with the oldest driver to support:
# [[run]]
# gpus = ["GTX 1060", "RTX 3060", "H100"]
# driver = "535"

# What is known and accepted, until a day:
# [[allow]]
# rule = "FP401"
# file = "libx.so"
# reason = "tensor core kernels, not called below sm_70"
# expires = 2027-12-31
"""


def starter(holders: Sequence[tuple[str, Node]]) -> Iterator[str]:
    """The text of the policy. ``holders``: each file or member that holds GPU code, by the path to name it with."""
    yield _HEAD
    for path, node in sorted(holders, key=lambda holder: holder[0].count("/")):  # a later pattern wins: lib.so before sub/lib.so
        targets = sorted({image.target for payload in node.payloads for image in payload.images}, key=target_key)
        yield "\n[[files]]\n"
        yield f"pattern = {_quoted(path)}\n"
        yield f"require = [{', '.join(map(_quoted, targets))}]\n"
        if not _even(node.payloads, targets):
            yield "every-module = false  # some modules lack some of them today\n"
    yield _TAIL


def _even(payloads: Sequence[Payload], targets: Sequence[str]) -> bool:
    """Whether every module holds every target of its vendor."""
    by_vendor: dict[str, set[str]] = {}
    for payload in payloads:
        by_vendor.setdefault(payload.vendor, set()).update(image.target for image in payload.images)
    return all({image.target for image in payload.images} == by_vendor[payload.vendor] for payload in payloads if payload.images)


def _quoted(text: str) -> str:
    """A TOML basic string that a pattern takes literally: what a pattern or TOML cannot say is a ``?``, any one character."""
    plain = re.sub(r"[*\ud800-\udfff]", "?", text)
    escaped = "".join(f"\\u{ord(char):04x}" if ord(char) < 0x20 or ord(char) == 0x7F or char in '"\\' else char for char in plain)
    return f'"{escaped}"'
