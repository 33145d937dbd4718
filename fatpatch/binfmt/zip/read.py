"""Zip archives, wheels, and the zip tail of an executable; zip64 included (reference: APPNOTE 6.3.10).

Only the directory and each local header are read; member bytes are not. Offsets count from byte 0 of the source, or from
the start of the archive when something was put in front of it without adjusting them.
"""

from __future__ import annotations

import struct

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ContainerKind
from fatpatch.model.tree import Container, Member

KIND = ContainerKind.ZIP
END = struct.Struct("<4sHHHHIIH")
END64 = struct.Struct("<4sQHHIIQQQQ")
LOCATOR64 = struct.Struct("<4sIQI")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
LOCAL = struct.Struct("<4sHHHHHIIIHH")
METHODS = {0: Codec.STORED, 8: Codec.DEFLATE, 12: Codec.BZIP2, 14: Codec.LZMA, 93: Codec.ZSTD, 95: Codec.XZ}
_TAIL = (1 << 16) + (1 << 12)
_MAX_VERSION = 63
_MAX_MEMBERS = 200_000
_MAX_DIRECTORY = 64 << 20
_FULL32 = 0xFFFFFFFF
_ENCRYPTED, _DATA_DESCRIPTOR, _UTF8 = 0x1, 0x8, 0x800


class Directory(NamedTuple):
    """Where the central directory is: offset, size, announced entries, and what to add to every local offset.

    ``zip64``: it is named by zip64 records; ``comment`` is the archive's own.
    """

    offset: int
    size: int
    entries: int
    shift: int
    zip64: bool = False
    comment: bytes = b""


def probe(source: Source) -> bool:
    """Whether the source starts as a zip and ends with a directory."""
    return source.peek(0, 4) in (n.ZIP_LOCAL_MAGIC, n.ZIP_END_MAGIC) and find_directory(source) is not None


def find_directory(source: Source) -> Directory | None:
    """The central directory named by the end record in the last 68 KiB; None when there is none that fits."""
    start = max(source.size - _TAIL, 0)
    tail = source.peek(start, _TAIL)
    at = len(tail)
    while (at := tail.rfind(n.ZIP_END_MAGIC, 0, at)) >= 0:
        if at + END.size <= len(tail) and (found := _directory(source, start + at, tail[at : at + END.size])):
            return found
    return None


def _directory(source: Source, at: int, record: bytes) -> Directory | None:
    _, _, _, _, count, size, offset, length = END.unpack(record)
    comment = source.peek(at + END.size, length)
    end, wide = at, False
    locator = source.peek(at - LOCATOR64.size, LOCATOR64.size) if at >= LOCATOR64.size else b""
    if locator[:4] == n.ZIP64_LOCATOR_MAGIC:
        end64 = source.peek(LOCATOR64.unpack(locator)[2], END64.size)
        if len(end64) == END64.size and end64[:4] == n.ZIP64_END_MAGIC:
            count, size, offset = END64.unpack(end64)[7:10]
            end, wide = LOCATOR64.unpack(locator)[2], True
    if offset + size > end or size > _MAX_DIRECTORY or count * CENTRAL.size > size:
        return None
    if not count:
        return Directory(offset, size, 0, 0, wide, comment)
    for shift in (0, end - size - offset):
        if source.peek(offset + shift, 4) == n.ZIP_CENTRAL_MAGIC:
            return Directory(offset + shift, size, count, shift, wide, comment)
    return None


def first_local_header(source: Source, end: int) -> int:
    """Offset of the first local header before ``end``, which has one: that of a replaced member may come before all that are listed."""
    at = 0
    while (at := source.find(n.ZIP_LOCAL_MAGIC, at, end)) >= 0:
        record = source.peek(at, LOCAL.size)
        if len(record) < LOCAL.size:
            break
        _, version, _, method, _, _, _, _, _, name_length, _ = LOCAL.unpack(record)
        name = source.peek(at + LOCAL.size, name_length)
        if version <= _MAX_VERSION and method in METHODS and 0 < name_length == len(name) and b"\0" not in name:
            return at
        at += len(n.ZIP_LOCAL_MAGIC)
    return end


def report_cut(source: Source, locator: str, diagnostics: Diagnostics) -> None:
    """An error when there is a member, for a file without a directory: a download that has stopped half-way."""
    at = 0 if source.peek(0, 4) == n.ZIP_LOCAL_MAGIC else first_local_header(source, source.size)
    if at < source.size:
        message = f"the file is cut off: there is a zip member at {at:#x}, and no central directory in the last 68 KiB"
        diagnostics.error(locator, source.size, message, field="end of central directory")


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """All members; a wheel says so."""
    directory = find_directory(source)
    members = () if directory is None else read_members(source, directory, locator, diagnostics)
    is_wheel = any(member.name.endswith(".dist-info/WHEEL") for member in members)
    return Container(kind=KIND, detail="wheel" if is_wheel else "", members=members)


def read_members(source: Source, directory: Directory, locator: str, diagnostics: Diagnostics) -> tuple[Member, ...]:
    """The files of the directory in its order; broken, overlapping or encrypted ones are diagnostics and left out."""
    data = source.peek(directory.offset, directory.size)
    members: list[Member] = []
    at = 0
    for index in range(directory.entries):
        where = directory.offset + at
        if at + CENTRAL.size > len(data) or data[at : at + 4] != n.ZIP_CENTRAL_MAGIC:
            message = f"{directory.entries} entries announced, entry {index} is not one"
            diagnostics.error(locator, where, message, field="central directory")
            break
        if index >= _MAX_MEMBERS:
            diagnostics.error(locator, where, f"more than {_MAX_MEMBERS} members: the rest is left out", field="central directory")
            break
        fields = CENTRAL.unpack_from(data, at)
        name_end = at + CENTRAL.size + fields[10]
        extra_end = name_end + fields[11]
        if extra_end + fields[12] > len(data):
            diagnostics.error(locator, where, "the entry reaches past the directory", field="central directory")
            break
        member = _member(source, directory.shift, fields, data[at + CENTRAL.size : name_end], data[name_end:extra_end])
        at = extra_end + fields[12]
        if isinstance(member, str):
            diagnostics.error(f"{locator}", where, member, field="central directory entry")
        elif not member.name.endswith("/"):
            members.append(member)
    return _without_overlaps(members, locator, diagnostics)


def _member(source: Source, shift: int, fields: tuple[int, ...], raw_name: bytes, extra: bytes) -> Member | str:
    """The member of one central entry, or what is wrong with it."""
    _, _, _, flags, method, _, _, crc, stored, size, _, _, _, _, _, _, offset = fields
    name = _decode(raw_name, flags)
    stored, size, offset = zip64_values(extra, stored, size, offset)
    shown = ascii(name[:80])
    local = source.peek(offset + shift, LOCAL.size)
    if len(local) < LOCAL.size or local[:4] != n.ZIP_LOCAL_MAGIC:
        return f"{shown}: expected a local header at {offset + shift:#x}, got {local[:4].hex() or 'the end of the file'}"
    _, _, _, _, _, _, _, _, _, name_length, extra_length = LOCAL.unpack(local)
    start = offset + shift + LOCAL.size + name_length + extra_length
    if start + stored > source.size:
        return f"{shown}: its data ends at {start + stored:#x}, the file at {source.size:#x}"
    if flags & _ENCRYPTED:
        return f"{shown}: encrypted, cannot be read"
    if method == 0 and stored != size:
        return f"{shown}: stored, but its sizes differ ({stored:#x} and {size:#x})"
    return Member(
        name=name,
        offset=start,
        stored_size=stored,
        size=size,
        method=METHODS.get(method, f"method {method}"),
        header_offset=offset + shift,
        crc32=crc,
    )


def zip64_values(extra: bytes, stored: int, size: int, offset: int) -> tuple[int, int, int]:
    """Sizes and offset with the zip64 extra field (id 1) applied to those that are all ones."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            values = list(struct.unpack_from(f"<{length // 8}Q", extra, at + 4)) if at + 4 + length <= len(extra) else []
            size = values.pop(0) if size == _FULL32 and values else size
            stored = values.pop(0) if stored == _FULL32 and values else stored
            offset = values.pop(0) if offset == _FULL32 and values else offset
            break
        at += 4 + length
    return stored, size, offset


def _decode(raw: bytes, flags: int) -> str:
    if flags & _UTF8:
        return raw.decode("utf-8", "backslashreplace")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp437")


def _without_overlaps(members: list[Member], locator: str, diagnostics: Diagnostics) -> tuple[Member, ...]:
    """Drop members whose bytes another member already claims (the quoted-overlap zip bomb)."""
    end, dropped = 0, set()
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            dropped.add(id(member))
            message = f"{member.name[:80]!a}: overlaps the member before it, which ends at {end:#x}: left out"
            diagnostics.error(locator, member.header_offset, message, field="local header offset")
        else:
            end = member.offset + member.stored_size
    return tuple(member for member in members if id(member) not in dropped)
