"""The headers of a file's images as text that can be kept, and the tree that it stands for: all that ``HeaderDoctor`` needs.

Modules of a library with the same images are one row with their number; an image's size is kept as whether it can hold a kernel.
"""

from __future__ import annotations

import json
from typing import Any, Final

from fatpatch.base.errors import FormatError
from fatpatch.base.locator import join
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.vacant import is_without_kernels
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import Codec, ContainerKind, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload, Wrapper
from fatpatch.scan.coverage import all_diagnostics, holders

_MOST_MODULES: Final = 100_000
_MOST_NOTES: Final = 20
_FULL: Final = 1 << 20
"""The size of an image that can hold kernels, in a tree that was made of text."""


class HeaderRecord(NamedTuple):
    """``text``: the headers. ``modules``: how many there are; ``sampled``: how many of them were read, None for all."""

    text: str
    modules: int
    sampled: int | None = None


def record_of(root: Node, sampled: int | None = None, modules: int | None = None) -> HeaderRecord:
    """The headers of a tree. ``modules``: of how many the tree's are samples."""
    libraries = [_library(node) for node in holders(root)]
    notes = [[item.locator, item.message] for item in all_diagnostics(root) if item.level == "error" or item.field == NOT_READ]
    count = sum(row[0] for library in libraries for row in library["modules"])
    text = json.dumps({"libraries": libraries, "unread": notes[:_MOST_NOTES]}, separators=(",", ":"))
    return HeaderRecord(text, count if modules is None else modules, sampled)


def tree_of(text: str, name: str) -> Node:
    """The tree of a record, without bytes. FormatError for text that is none."""
    try:
        document: Any = json.loads(text)
        members = tuple(_node(name, library) for library in document["libraries"])
        notes = tuple(Diagnostic(str(place), "warning", None, str(words), NOT_READ) for place, words in document["unread"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise FormatError("is not a record of headers", locator=name) from error
    return Node(name, name, 0, ContainerKind.ZIP, "", members, (), notes, member_count=len(members))


def _library(node: Node) -> dict[str, Any]:
    rows: dict[str, tuple[int, list[Any]]] = {}
    for payload in node.payloads:
        images = [_image(image) for image in payload.images]
        wrapper = None if payload.wrapper is None else payload.wrapper.version
        found = list(payload.found_by) == ["file"]
        row = [payload.vendor, payload.kind, payload.section, wrapper, found, is_without_kernels(payload), payload.fillers, images]
        key = json.dumps(row)
        rows[key] = (rows.get(key, (0, row))[0] + 1, row)
    return {
        "path": node.path,
        "container": node.container,
        "detail": node.detail,
        "modules": [[count, *row] for count, row in rows.values()],
    }


def _image(image: ImageEntry) -> list[Any]:
    return [image.kind, image.target, image.code_version, image.compression, image.flags, image.kind_code, image.within is not None]


def _node(name: str, library: dict[str, Any]) -> Node:
    locator = join(name, str(library["path"]))
    payloads: list[Payload] = []
    for count, *row in library["modules"]:
        if not isinstance(count, int) or not 0 < count <= _MOST_MODULES or len(payloads) + count > _MOST_MODULES:
            raise ValueError("too many modules")
        payloads += [_payload(locator, len(payloads) + index, row) for index in range(count)]
    return Node(locator, str(library["path"]), 0, ContainerKind(library["container"]), str(library["detail"]), (), tuple(payloads), ())


def _payload(holder: str, number: int, row: list[Any]) -> Payload:
    vendor, kind, section, wrapper, whole, vacant, fillers, images = row
    locator = join(holder, f"{kind}[{number}]")
    return Payload(
        locator=locator,
        vendor=Vendor(vendor),
        kind=ModuleKind(kind),
        section=section,
        offset=number,
        size=0,
        found_by=("file",) if whole else ("section",),
        images=tuple(_entry(locator, index, each, vacant=bool(vacant)) for index, each in enumerate(images)),
        wrapper=None if wrapper is None else Wrapper(int(wrapper), 0),
        fillers=int(fillers),
    )


def _entry(holder: str, index: int, row: list[Any], *, vacant: bool) -> ImageEntry:
    kind, target, version, compression, flags, code, within = row
    size = 1 if vacant else _FULL
    return ImageEntry(
        locator=join(holder, str(target)),
        kind=ImageKind(kind),
        target=str(target),
        code_version=version,
        compression=Codec(compression),
        stored_size=size,
        size=size,
        offset=index,
        data_offset=index,
        stored_bytes=size,
        within=(0, size) if within else None,
        flags=flags,
        kind_code=code,
    )
