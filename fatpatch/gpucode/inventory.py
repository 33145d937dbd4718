"""Code that any GPU of an API level can run, found by its magic: SPIR-V modules and Metal libraries. Counted, not taken apart.

They have no target: a driver compiles them at load time. References: SPIR-V specification, 2.3; Metal libraries as Apple's tools
write them (header and function list read back from a shipped one).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from fatpatch.base.errors import FormatError
from fatpatch.base.locator import escape
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.spirv import read_module, sane_header
from fatpatch.model.tree import Inventory

_SPIRV_HEADER = 20
_WINDOWS = (1 << 16, 1 << 20, 1 << 24)
_METAL = struct.Struct("<4s12sQQ")
_MAX_HITS = 100_000
_MAX_NAMES = 200_000
_TAG = struct.Struct("<4sH")
_Found = tuple[int, str, list[str]]  # bytes, version, entry points


def take_inventory(source: Source) -> tuple[Inventory, ...]:
    """One entry for each kind of which there is any."""
    found = (_summed("SPIR-V module", _modules(source)), _summed("Metal library", _libraries(source)))
    return tuple(each for each in found if each is not None)


def _summed(kind: str, items: Iterator[_Found]) -> Inventory | None:
    count = size = 0
    versions: set[str] = set()
    names: dict[str, int] = {}
    for length, version, entry_points in items:
        count += 1
        size += length
        versions.add(version)
        for name in entry_points if len(names) < _MAX_NAMES else ():
            names[name] = names.get(name, 0) + 1
    if not count:
        return None
    common = sorted(names.items(), key=lambda item: (-item[1], item[0]))
    return Inventory(kind, count, size, tuple(sorted(filter(None, versions))), tuple((escape(name), times) for name, times in common))


def _modules(source: Source) -> Iterator[_Found]:
    at = 0
    for _ in range(_MAX_HITS):
        at = source.find(n.SPIRV_MAGIC, at, source.size)
        if at < 0:
            return
        length = len(n.SPIRV_MAGIC)
        if sane_header(source.peek(at, _SPIRV_HEADER)):
            for window in _WINDOWS:
                data = source.peek(at, window)
                try:
                    module = read_module(data)
                except FormatError:
                    break
                length = max(module.size, length)
                if len(data) < window or module.size < window // 2:
                    break
            if length > _SPIRV_HEADER:
                yield length, module.version, list(module.entry_points)
        at += length


def _libraries(source: Source) -> Iterator[_Found]:
    at = 0
    for _ in range(_MAX_HITS):
        at = source.find(n.METALLIB_MAGIC, at, source.size)
        if at < 0:
            return
        head = source.peek(at, _METAL.size)
        length = len(n.METALLIB_MAGIC)
        if len(head) == _METAL.size:
            _, _, size, functions = _METAL.unpack(head)
            if _METAL.size < functions < size <= source.size - at:
                yield size, "", list(_functions(source, at + functions, at + size))
                length = size
        at += length


def _functions(source: Source, at: int, end: int) -> Iterator[str]:
    """The names in a Metal library's function list: for each function a size, then tags with values."""
    count = int.from_bytes(source.peek(at, 4), "little")
    at += 4
    for _ in range(min(count, _MAX_NAMES)):
        size = int.from_bytes(source.peek(at, 4), "little")
        if size < 4 or at + size > end:
            return
        tags = source.peek(at + 4, min(size - 4, 1 << 16))
        place = 0
        while place + _TAG.size <= len(tags):
            tag, length = _TAG.unpack_from(tags, place)
            if tag == b"NAME":
                yield tags[place + _TAG.size : place + _TAG.size + length].split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
                break
            place += _TAG.size + length
        at += size
