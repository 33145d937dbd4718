"""Members of a zip, wheel or APE replaced without moving any other: in place where the new bytes fit, else appended.

What llamafile and its runtime demand of a zip (reference: llamafile, section 3): stored members at their old alignment, sizes in the
local header and no data descriptor, absolute offsets, the new central directory behind the new data, the old bytes untouched.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from tempfile import TemporaryFile
from typing import IO

from fatpatch.base.errors import EditError, InputError, UnsupportedError
from fatpatch.base.overlay import Overlay, Write
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.crc import crc_of
from fatpatch.binfmt.zip import read as zip_reader
from fatpatch.binfmt.zip.append_marker import trailer
from fatpatch.formats import numbers as n
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import Member

_FULL32, _FULL16 = 0xFFFFFFFF, 0xFFFF
_DESCRIPTOR = 0x8
_DESCRIPTOR_MAGIC, _DESCRIPTOR_SIZE = b"PK\x07\x08", 16
_ZIP64_VERSION = 45
_WINDOWS_LIMIT = (4 << 30) - 1
_ALIGNMENTS = (0x10000, 0x4000, 0x1000, 0x40, 0x10)
PAGE = 0x1000
_EXTRA_ZIP64, _EXTRA_ALIGNMENT = 0x0001, 0xD935


class Record(NamedTuple):
    """One entry of the central directory, raw: its fixed fields and what follows them."""

    fields: tuple[int, ...]
    name: bytes
    extra: bytes
    comment: bytes

    def packed(self) -> bytes:
        return zip_reader.CENTRAL.pack(n.ZIP_CENTRAL_MAGIC, *self.fields[1:]) + self.name + self.extra + self.comment


class ArchiveEdit(NamedTuple):
    """The archive as it will be; ``placements`` say how each member was replaced.

    ``spare_at``: where a copy of the old directory lies when the old bytes stay as they are; None when some change.
    """

    overlay: Overlay
    placements: dict[Member, str]
    spare_at: int | None
    rebuilt: bool = False


def edit_archive(source: Source, locator: str, replaced: Mapping[Member, Overlay], *, rebuild: bool = False) -> ArchiveEdit:
    """Replace members: in place where all fit, else appended, or with ``rebuild`` in an archive written anew.

    EditError when the archive cannot be edited without moving something, or would grow past what Windows starts.
    """
    directory = zip_reader.find_directory(source)
    if directory is None:
        raise EditError("has no zip directory any more", locator=locator)
    if directory.shift:
        raise UnsupportedError("its zip offsets do not count from the start of the file", locator=locator, hint="zip -A repairs that")
    records = _records(source, directory)
    by_offset = {_local_offset(record): index for index, record in enumerate(records)}
    writes: list[Write] = []
    tail: list[Source] = []
    placements: dict[Member, str] = {}
    end = source.size
    starts = sorted([*by_offset, directory.offset])
    for member, content in replaced.items():
        index = by_offset.get(member.header_offset, -1)
        if index < 0:
            raise EditError("its central directory has changed", locator=locator, offset=member.header_offset)
        following = next((start for start in starts if start > member.header_offset), None)
        if following is None:
            raise EditError("a member lies behind the central directory", locator=locator, offset=member.header_offset)
        room = member.stored_size + _blank(source, member.offset + member.stored_size, following)
        if member.method == Codec.STORED and content.size <= room and not content.kept < content.base.size:
            record, changes = _in_place(source, member, content, records[index])
            writes += changes
            placements[member] = "in place"
        elif rebuild:
            return _rebuilt(source, locator, directory, replaced)
        else:
            record, parts = _appended(source, member, content, records[index], end)
            tail += parts
            end += sum(part.size for part in parts)
            placements[member] = "appended"
        records[index] = record
    packed = b"".join(record.packed() for record in records)
    if not tail:
        if len(packed) != directory.size:
            raise EditError("its central directory would change its size", locator=locator)
        writes.append(Write.of(directory.offset, packed))
        return ArchiveEdit(Overlay.of(source, writes), placements, None)
    spare_at = None
    if not writes:
        before = page_gap(end + directory.size, directory)
        spare_at = end + before
        spare = old_directory(source, spare_at)
        mark = trailer(source)
        after = page_gap(spare_at + len(spare) + mark.size + len(packed), directory)
        tail += [Source.zeros(before), Source.of(spare), Source.zeros(after), mark]
        end = spare_at + len(spare) + after + mark.size
    tail.append(Source.of(packed + _end_records(directory, len(records), end, len(packed))))
    overlay = Overlay.of(source, writes, tail)
    if source.size <= _WINDOWS_LIMIT < overlay.size and source.peek(0, 2) == b"MZ":
        hint = "graft into the extracted copy instead: --extracted, see 'fatpatch graft --help'"
        message = f"would grow to {overlay.size} bytes; Windows starts no program of 4 GiB or more"
        raise EditError(message, locator=locator, hint=hint)
    return ArchiveEdit(overlay, placements, spare_at)


def _rebuilt(source: Source, locator: str, directory: zip_reader.Directory, replaced: Mapping[Member, Overlay]) -> ArchiveEdit:
    """The archive with every member behind the one before, as far apart as their alignments want it; what lies before the first stays.

    Bytes between members that belong to none, such as old directories, are carried along. EditError when members overlap.
    """
    records = _records(source, directory)
    by_offset = {member.header_offset: (member, content) for member, content in replaced.items()}
    order = sorted(range(len(records)), key=lambda index: _local_offset(records[index]))
    start = end = _local_offset(records[order[0]]) if order else directory.offset
    new, parts, at = list(records), list[Source](), start
    for index in order:
        record = records[index]
        offset = _local_offset(record)
        member, content = by_offset.get(offset, (None, None))
        parts += (between := _between(source, locator, at, offset))
        end += sum(part.size for part in between)
        at = _end_of(source, record)
        if member is not None and content is not None:
            new[index], pieces = _appended(source, member, content, record, end)
        else:
            new[index], pieces = _carried(source, record, at, end)
        parts += pieces
        end += sum(part.size for part in pieces)
    parts += (between := _between(source, locator, at, directory.offset))
    end += sum(part.size for part in between)
    packed = b"".join(record.packed() for record in new)
    parts.append(Source.of(packed + _end_records(directory, len(new), end, len(packed))))
    return ArchiveEdit(Overlay.of(source, (), parts, start), dict.fromkeys(replaced, "in an archive written anew"), None, rebuilt=True)


def _end_of(source: Source, record: Record) -> int:
    """Where a member's bytes end, its data descriptor included."""
    offset = _local_offset(record)
    local = zip_reader.LOCAL.unpack(source.read(offset, zip_reader.LOCAL.size))
    stored = zip_reader.zip64_values(record.extra, record.fields[8], record.fields[9], record.fields[16])[0]
    end: int = offset + zip_reader.LOCAL.size + local[9] + local[10] + stored
    if not record.fields[3] & _DESCRIPTOR:
        return end
    signed = source.peek(end, 4) == _DESCRIPTOR_MAGIC
    wide = _EXTRA_ZIP64 in _kinds(source.read(offset + zip_reader.LOCAL.size + local[9], local[10]))
    return end + (4 if signed else 0) + (20 if wide else 12)


def _carried(source: Source, record: Record, member_end: int, end: int) -> tuple[Record, list[Source]]:
    """A member as it is, behind ``end``; a stored one at the alignment that it has."""
    offset = _local_offset(record)
    local = zip_reader.LOCAL.unpack(source.read(offset, zip_reader.LOCAL.size))
    data = offset + zip_reader.LOCAL.size + local[9] + local[10]
    alignment = next((each for each in _ALIGNMENTS if data % each == 0), 1) if record.fields[4] == 0 else 1
    gap = -(end + data - offset) % alignment
    stored, size, _ = zip_reader.zip64_values(record.extra, record.fields[8], record.fields[9], record.fields[16])
    moved = _updated(record, record.fields[3], record.fields[7], stored, size, end + gap)
    return moved, [Source.zeros(gap), source.slice(offset, member_end - offset)]


def _between(source: Source, locator: str, start: int, end: int) -> list[Source]:
    """What lies between two members: nothing of mere padding."""
    if end < start:
        hint = "unpack it, edit the file inside, and pack it again"
        raise EditError("members lie over each other, so it is not written anew", locator=locator, offset=end, hint=hint)
    return [source.slice(start, end - start)] if any(any(chunk) for chunk in source.chunks(start, end - start)) else []


def _kinds(extra: bytes) -> Iterator[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        yield kind
        at += 4 + length


def _blank(source: Source, start: int, end: int) -> int:
    """Zero bytes from ``start`` on, up to ``end``: padding that a member may grow over; its data descriptor counts, too."""
    data = source.peek(start, min(end - start, 1 << 20))
    if data.startswith(_DESCRIPTOR_MAGIC):
        data = bytes(_DESCRIPTOR_SIZE) + data[_DESCRIPTOR_SIZE:]
    return len(data) - len(data.lstrip(b"\0"))


def _records(source: Source, directory: zip_reader.Directory) -> list[Record]:
    data = source.read(directory.offset, directory.size)
    records, at = [], 0
    for _ in range(directory.entries):
        if at + zip_reader.CENTRAL.size > len(data) or data[at : at + 4] != n.ZIP_CENTRAL_MAGIC:
            raise EditError("its central directory is damaged", offset=directory.offset + at)
        fields = zip_reader.CENTRAL.unpack_from(data, at)
        name_end = at + zip_reader.CENTRAL.size + fields[10]
        extra_end = name_end + fields[11]
        end = extra_end + fields[12]
        records.append(Record(fields, data[at + zip_reader.CENTRAL.size : name_end], data[name_end:extra_end], data[extra_end:end]))
        at = end
    if at != len(data):
        raise EditError(f"{len(data) - at:#x} bytes behind the entries of its central directory", offset=directory.offset + at)
    return records


def _local_offset(record: Record) -> int:
    return zip_reader.zip64_values(record.extra, record.fields[8], record.fields[9], record.fields[16])[2]


def _in_place(source: Source, member: Member, content: Overlay, record: Record) -> tuple[Record, list[Write]]:
    """Overwrite what changes of a stored member, and its check sum and sizes in both headers."""
    crc = crc_of(content.source().chunks())
    writes = [Write(member.offset + write.offset, write.data) for write in content.writes]
    at = member.offset + content.kept
    for part in content.tail:
        writes.append(Write(at, part))
        at += part.size
    local = zip_reader.LOCAL.unpack(source.read(member.header_offset, zip_reader.LOCAL.size))
    name_at = member.header_offset + zip_reader.LOCAL.size
    extra = source.read(name_at + local[9], local[10])
    flags = record.fields[3] & ~_DESCRIPTOR
    stored, size, local_extra = _local_sizes(local[7], local[8], extra, content.size)
    header = zip_reader.LOCAL.pack(n.ZIP_LOCAL_MAGIC, local[1], flags, *local[3:6], crc, stored, size, *local[9:])
    writes.append(Write.of(member.header_offset, header))
    if local_extra != extra:
        writes.append(Write.of(name_at + local[9], local_extra))
    return _updated(record, flags, crc, content.size, content.size, None), writes


def _local_sizes(stored: int, size: int, extra: bytes, new: int) -> tuple[int, int, bytes]:
    """Both sizes where this local header keeps them: in its zip64 extra field if it has one, else in its own fields."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _EXTRA_ZIP64 and length >= 16:
            return _FULL32, _FULL32, extra[: at + 4] + struct.pack("<QQ", new, new) + extra[at + 20 :]
        at += 4 + length
    return new, new, extra


def _appended(source: Source, member: Member, content: Overlay, record: Record, end: int) -> tuple[Record, list[Source]]:
    """A new local header and the new bytes behind everything, the bytes at the alignment they had."""
    crc = crc_of(content.source().chunks())
    size = content.size
    if member.method == Codec.STORED:
        data, stored = content.source(), size
        alignment = next((each for each in _ALIGNMENTS if member.offset % each == 0), 1)
    elif member.method == Codec.DEFLATE:
        data = _deflated(content.source())
        stored, alignment = data.size, 1
    else:
        raise UnsupportedError(
            f"the member {member.name} is packed by {member.method}: not written", hint="repack the archive with deflate"
        )
    local = zip_reader.LOCAL.unpack(source.read(member.header_offset, zip_reader.LOCAL.size))
    old_extra = source.read(member.header_offset + zip_reader.LOCAL.size + local[9], local[10])
    extra = _without(old_extra, _EXTRA_ZIP64, _EXTRA_ALIGNMENT)
    wide = stored >= _FULL32 or size >= _FULL32
    if wide:
        extra = struct.pack("<HHQQ", _EXTRA_ZIP64, 16, size, stored) + extra
    gap = -(end + zip_reader.LOCAL.size + len(record.name) + len(extra)) % alignment
    flags = record.fields[3] & ~_DESCRIPTOR
    header = zip_reader.LOCAL.pack(
        n.ZIP_LOCAL_MAGIC, max(local[1], _ZIP64_VERSION) if wide else local[1], flags, *local[3:6], crc,
        _FULL32 if wide else stored, _FULL32 if wide else size, len(record.name), len(extra),
    )  # fmt: skip
    parts = [Source.zeros(gap), Source.of(header + record.name + extra), data]
    return _updated(record, flags, crc, stored, size, end + gap), parts


def _updated(record: Record, flags: int, crc: int, stored: int, size: int, offset: int | None) -> Record:
    """The central entry with new sizes; a zip64 extra field as needed, and kept where there was one."""
    fields = list(record.fields)
    offset = _local_offset(record) if offset is None else offset
    had = _without(record.extra, _EXTRA_ZIP64) != record.extra
    full32 = [had and fields[9] == _FULL32, had and fields[8] == _FULL32, had and fields[16] == _FULL32]
    wide = [value for value, kept in zip((size, stored, offset), full32, strict=True) if value >= _FULL32 or kept]
    fields[3], fields[7] = flags, crc
    for index, value, kept in zip((9, 8, 16), (size, stored, offset), full32, strict=True):
        fields[index] = _FULL32 if value >= _FULL32 or kept else value
    extra = _without(record.extra, _EXTRA_ZIP64)
    if wide:
        extra = struct.pack(f"<HH{len(wide)}Q", _EXTRA_ZIP64, 8 * len(wide), *wide) + extra
        fields[2] = max(fields[2], _ZIP64_VERSION)
    fields[11] = len(extra)
    return Record(tuple(fields), record.name, extra, record.comment)


def _without(extra: bytes, *kinds: int) -> bytes:
    """Extra fields without those of some kinds."""
    kept, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind not in kinds:
            kept += extra[at : at + 4 + length]
        at += 4 + length
    return kept


def old_directory(source: Source, at: int) -> bytes:
    """The present central directory with end records that hold for it when it lies at ``at``.

    Kept right before the new one: while bytes are appended to the file itself, such a copy at its end keeps the archive readable.
    """
    directory = zip_reader.find_directory(source)
    assert directory is not None
    return source.read(directory.offset, directory.size) + _end_records(directory, directory.entries, at, directory.size)


def page_gap(at: int, directory: zip_reader.Directory) -> int:
    """Bytes to leave out so that end records at ``at`` lie in one page: a page is written whole or not at all."""
    size, inside = end_records_size(directory), at % PAGE
    return PAGE - inside if inside + size > PAGE >= size else 0


def end_records_size(directory: zip_reader.Directory) -> int:
    """Bytes of the end records at most: the zip64 ones counted, the comment too."""
    return zip_reader.END64.size + zip_reader.LOCATOR64.size + zip_reader.END.size + len(directory.comment)


def _end_records(directory: zip_reader.Directory, count: int, at: int, size: int) -> bytes:
    """The end records behind a directory at ``at``; zip64 when the old ones were, or when a number needs it. The comment stays."""
    comment = directory.comment
    wide = directory.zip64 or at >= _FULL32 or size >= _FULL32 or count >= _FULL16
    result = b""
    if wide:
        result = zip_reader.END64.pack(
            n.ZIP64_END_MAGIC, zip_reader.END64.size - 12, _ZIP64_VERSION, _ZIP64_VERSION, 0, 0, count, count, size, at
        ) + zip_reader.LOCATOR64.pack(n.ZIP64_LOCATOR_MAGIC, 0, at + size, 1)
    count16, size32, at32 = min(count, _FULL16), min(size, _FULL32), _FULL32 if wide else at
    return result + zip_reader.END.pack(n.ZIP_END_MAGIC, 0, 0, count16, count16, size32, at32, len(comment)) + comment


def _deflated(content: Source) -> Source:
    """The content deflated into an unnamed temporary file."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    try:
        sink: IO[bytes] = TemporaryFile()  # noqa: SIM115 (lives as long as the source over it)
        for chunk in content.chunks():
            sink.write(packer.compress(chunk))
        sink.write(packer.flush())
        sink.flush()
    except OSError as error:
        raise InputError(f"cannot write a temporary file: {error.strerror}", hint="set TMPDIR to a folder with room") from error
    return Source.of_file(sink)
