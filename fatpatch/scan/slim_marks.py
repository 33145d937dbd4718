"""Marks of slimmed files: in a distribution's own folder, at the root of a slimmed folder, in a wheel, or beside a single file.

A mark counts for a file that it names and that has the size that it had then: an installer that replaced the file made it void.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.json_text import json_object
from fatpatch.base.limits import Limits
from fatpatch.binfmt.unpack import Workspace
from fatpatch.model.slim_mark import SlimMark
from fatpatch.model.tree import Node

MARK: Final = "fatpatch-slim.json"
"""In ``*.dist-info``, and at the root of a slimmed folder."""

BESIDE: Final = ".fatpatch-slim.json"
"""After the name of a file that was slimmed by itself."""

SCHEMA: Final = "fatpatch.slimmed/1"
_SITES: Final = frozenset({"site-packages", "dist-packages"})
_MAX_MARK: Final = 64 << 20
_MAX_DEPTH: Final = 40


def marked(node: Node, path: str) -> Node:
    """The node of a file or wheel at ``path`` with its mark, where it has one."""
    if not os.path.exists(path):
        return node
    mark = _of_wheel(node) if node.detail == "wheel" else _of_file(path) if node.payloads else None
    return node if mark is None else node._replace(slimmed=mark)


def marks_below(node: Node) -> tuple[SlimMark, ...]:
    """The marks of a node and the files in it, each once, without their files."""
    found: dict[SlimMark, None] = {}
    stack = [node]
    while stack:
        each = stack.pop()
        if each.slimmed is not None:
            found[each.slimmed._replace(files=())] = None
        stack += each.members
    return tuple(sorted(found))


def mark_bytes(mark: SlimMark) -> bytes:
    """The mark as a file."""
    import json

    return json.dumps({"schema": SCHEMA, **mark.document(), "files": dict(mark.files)}, indent=1).encode() + b"\n"


def mark_from(document: Any) -> SlimMark | None:
    """A mark from its document; None for what is none."""
    try:
        if document["schema"] != SCHEMA:
            return None
        lists = [tuple(str(each)[:100] for each in document[key])[:100] for key in ("targets", "gpus", "dropped")]
        files = tuple((str(path), int(size)) for path, size in document["files"].items())
        return SlimMark(lists[0], lists[1], lists[2], str(document["date"])[:10], files)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _of_file(path: str) -> SlimMark | None:
    """The mark that names a file, beside it or in one of the folders above it."""
    real = os.path.realpath(path)
    own = read_mark(real + BESIDE)
    if own is not None and dict(own.files).get(os.path.basename(real)) == os.path.getsize(real):
        return own
    folder = os.path.dirname(real)
    for _ in range(_MAX_DEPTH):
        marks = _marks_in(folder) if os.path.basename(folder) in _SITES else _root_mark(folder)
        inner = os.path.relpath(real, folder).replace(os.sep, "/")
        for mark in marks:
            if dict(mark.files).get(inner) == os.path.getsize(real):
                return mark
        above = os.path.dirname(folder)
        if above == folder:
            break
        folder = above
    return None


@lru_cache(maxsize=64)
def _marks_in(folder: str) -> tuple[SlimMark, ...]:
    """Those of all distributions in a folder, and its own."""
    with suppress(OSError):
        infos = [entry.path for entry in os.scandir(folder) if entry.name.endswith(".dist-info")]
        found = [read_mark(os.path.join(info, MARK)) for info in infos]
        return (*(mark for mark in found if mark is not None), *_root_mark(folder))
    return ()


@lru_cache(maxsize=64)
def _root_mark(folder: str) -> tuple[SlimMark, ...]:
    """That of a folder that was slimmed as a whole: its state has one."""
    mark = read_mark(os.path.join(folder, MARK))
    return () if mark is None else (mark,)


def read_mark(path: str) -> SlimMark | None:
    """The mark in a file; None where there is none."""
    try:
        if os.path.getsize(path) > _MAX_MARK:
            return None
        with open(path, "rb") as stream:
            return mark_in(stream.read(_MAX_MARK))
    except OSError:
        return None


def _of_wheel(node: Node) -> SlimMark | None:
    found = (each for each in node.layout.members if each.name.endswith(f".dist-info/{MARK}") and each.name.count("/") == 1)
    member = next(found, None)
    if member is None or member.size > _MAX_MARK:
        return None
    workspace = Workspace(Limits(), node.content.size)
    try:
        return mark_in(workspace.open(node.content, member).read(0, member.size))
    except FatpatchError:
        return None
    finally:
        workspace.close()


def mark_in(data: bytes | str) -> SlimMark | None:
    """The mark in the text of a file; None for what is none."""
    document = json_object(data)
    return mark_from(document.get("mark", document))
