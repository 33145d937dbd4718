"""SPIR-V modules: version, and the entry points by name (reference: SPIR-V specification, 2.3 physical layout)."""

from __future__ import annotations

import struct

from fatpatch.base.errors import FormatError
from fatpatch.base.records import NamedTuple
from fatpatch.formats import numbers as n

_HEADER = struct.Struct("<IIIII")
_WORD = struct.Struct("<I")
_ENTRY_POINT, _FUNCTION, _FUNCTION_END = 15, 54, 56
_BETWEEN_FUNCTIONS = frozenset({_FUNCTION, 8, 12, 317})  # OpFunction, OpLine, OpExtInst (non-semantic), OpNoLine
_LAST_MAJOR, _LAST_MINOR = 1, 6
_MAX_BOUND = 1 << 22
_MAX_ENTRIES = 10_000
_MAX_NAME = 1 << 16


class SpirvModule(NamedTuple):
    """A SPIR-V module at the start of some bytes: its version, entry points, and size in bytes."""

    version: str
    entry_points: tuple[str, ...]
    size: int


def sane_header(data: bytes, at: int = 0) -> bool:
    """Whether a module can start here: known version, sensible bound, schema 0."""
    if at + _HEADER.size > len(data):
        return False
    magic, version, _, bound, schema = _HEADER.unpack_from(data, at)
    major, minor = version >> 16 & 0xFF, version >> 8 & 0xFF
    known = version & 0xFF0000FF == 0 and major == _LAST_MAJOR and minor <= _LAST_MINOR
    return _WORD.pack(magic) == n.SPIRV_MAGIC and known and 0 < bound <= _MAX_BOUND and schema == 0


def read_module(data: bytes) -> SpirvModule:
    """Read the module that ``data`` starts with; it ends behind its last function. FormatError when there is none."""
    if not sane_header(data):
        raise FormatError(f"expected a SPIR-V header, got {data[:20].hex()}", offset=0, field="SPIR-V header")
    names: list[str] = []
    at, end = _HEADER.size, 0
    while at + _WORD.size <= len(data):
        (word,) = _WORD.unpack_from(data, at)
        length, opcode = (word >> 16) * 4, word & 0xFFFF
        if length == 0 or at + length > len(data) or data[at : at + 4] == n.SPIRV_MAGIC:
            break
        if opcode == _ENTRY_POINT and length > 12 and len(names) < _MAX_ENTRIES:
            names.append(data[at + 12 : min(at + length, at + _MAX_NAME)].split(b"\0", 1)[0].decode("utf-8", "backslashreplace"))
        at += length
        if opcode == _FUNCTION_END:
            end = at
            if at + _WORD.size > len(data) or _WORD.unpack_from(data, at)[0] & 0xFFFF not in _BETWEEN_FUNCTIONS:
                break
    return SpirvModule(f"{data[6]}.{data[5]}", tuple(names), end or at)
