"""Tar archives: ustar, GNU, pax (reference: POSIX.1-2017 pax, GNU tar manual, appendix "Sparse Formats"). Members are read in place."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ContainerKind
from fatpatch.model.tree import Container, Member

KIND = ContainerKind.TAR
BLOCK = 512
_MAX_MEMBERS = 200_000
_MAX_RECORD = 1 << 20
_MAX_PARTS = 100_000
_END = 1 << 16
_SPECIAL = frozenset({b"1", b"2", b"3", b"4", b"5", b"6", b"A", b"D", b"E", b"I", b"M", b"N", b"V"})
"""Types that are no files; every other one is to be read as a regular file (POSIX.1-2017, pax, ustar, typeflag)."""
_CONTINUED = b"M"
FILE, HARD_LINK, LINK, FOLDER, OTHER = "file", "hard link", "symbolic link", "folder", "other"
_KINDS = {b"1": HARD_LINK, b"2": LINK, b"5": FOLDER}
_BEFORE = (b"L", b"K", b"x", b"X", b"g")
_PLAIN = frozenset({b"0", b"\0", b"5"})
_WITHOUT_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})

Parts = tuple[tuple[int, int], ...]
"""Of a sparse file: (offset, size) of each piece of data, ascending; all else are zeros."""


class TarEntry(NamedTuple):
    """One entry: its kind (one of the constants here), its name, where a link leads, and the member of a regular file."""

    kind: str
    name: str
    link: str = ""
    member: Member | None = None


class PlainHeader(NamedTuple):
    """A header block of a regular file or a folder, which no record before it and no map of a sparse file goes with."""

    name: str
    size: int


class _Extended(NamedTuple):
    """What records before a header say of the member behind it. ``size``: stored bytes; ``real``: bytes of a sparse file."""

    name: str = ""
    link: str = ""
    size: int | None = None
    real: int | None = None
    parts: Parts | None = None
    in_data: bool = False


def probe(source: Source) -> bool:
    """Whether the first block is a tar header: its checksum fits (old archives have no magic)."""
    block = source.peek(0, BLOCK)
    return len(block) == BLOCK and block[0] != 0 and _checksum_fits(block)


def plain_header(block: bytes) -> PlainHeader | None:
    """The header in a block, when it is one of POSIX or GNU with a right checksum, and all about its member stands in it."""
    if len(block) != BLOCK or block[257:262] != b"ustar" or block[156:157] not in _PLAIN or not _checksum_fits(block):
        return None
    size = _number(block[124:136])
    return None if size is None else PlainHeader(_ustar_name(block), size)


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """All regular files, up to the end mark or the first block that is no header."""
    members = [entry.member for entry in entries(source, locator, diagnostics) if entry.member is not None]
    return Container(kind=KIND, members=tuple(members))


def entries(source: Source, locator: str, diagnostics: Diagnostics, most: int = _MAX_MEMBERS) -> Iterator[TarEntry]:
    """Every entry, links and folders too, up to the end mark or the first block that is no header; of files ``most``.

    The size of ``source`` may be an upper bound, as of a stream that is being unpacked.
    """
    at, known, count = 0, _Extended(), 0
    while (block := source.peek(at, BLOCK)) and any(block):
        size = _number(block[124:136]) if len(block) == BLOCK and _checksum_fits(block) else None
        if size is None:
            diagnostics.error(locator, at, "expected a header block with a right checksum", field="header")
            break
        if count >= most:
            diagnostics.error(locator, at, f"more than {most} members: the rest is left out", field="header")
            break
        kind, data = block[156:157], at + BLOCK
        if kind in _BEFORE:
            known = _record(kind, source.peek(data, min(size, _MAX_RECORD)), known)
        elif kind not in _SPECIAL:
            count += 1
            size = size if known.size is None else known.size
            if kind == b"S":
                known, data = _old_sparse(source, block, data, known)
            name = known.name or _ustar_name(block)
            if data + size > source.size:
                message = f"{name[:80]!a} ends at {data + size:#x}, the archive at {source.size:#x}"
                diagnostics.error(locator, at + 124, message, field="size")
                break
            if not name.endswith("/"):
                member = _member(source, name, at, data, size, known)
                if member is None:
                    diagnostics.error(locator, at, f"{name[:80]!a}: its map of a sparse file does not hold", field="sparse map")
                else:
                    yield TarEntry(FILE, name, "", member)
            else:
                yield TarEntry(FOLDER, name)
            known = _Extended()
        else:
            if kind == _CONTINUED:
                diagnostics.not_read(locator, at, "the file goes on from another volume: not read; join the volumes with tar -M")
            count += 1
            size = 0 if kind in _WITHOUT_DATA else size
            yield TarEntry(_KINDS.get(kind, OTHER), known.name or _ustar_name(block), known.link or _text(block[157:257]))
            known = _Extended()
        at = data + (size + BLOCK - 1) // BLOCK * BLOCK
    if (following := _archive_behind(source, at)) is not None:
        diagnostics.not_read(locator, following, "another archive follows: not read; tar --ignore-zeros unpacks both")


def _archive_behind(source: Source, end: int) -> int | None:
    """Where a header stands behind the zero blocks that end an archive, as when two were joined; None where there is none."""
    blocks = source.peek(end, _END)
    at = (len(blocks) - len(blocks.lstrip(b"\0"))) // BLOCK * BLOCK
    block = blocks[at : at + BLOCK]
    return end + at if at and len(block) == BLOCK and block[0] and _checksum_fits(block) else None


def _record(kind: bytes, data: bytes, known: _Extended) -> _Extended:
    """What a record before a header says; global ones are of no use here."""
    if kind == b"L":
        return known._replace(name=_text(data))
    if kind == b"K":
        return known._replace(link=_text(data))
    return known if kind == b"g" else _pax(data, known)


def _member(source: Source, name: str, at: int, data: int, size: int, known: _Extended) -> Member | None:
    """The member of a regular file; None when it is sparse and its map contradicts what is stored."""
    parts = known.parts
    if known.in_data:
        parts, used = _map_in_data(source, data, size)
        data, size = data + used, size - used
    if parts is None:
        return Member(name=name, offset=data, stored_size=size, size=size, header_offset=at)
    end = 0
    for start, length in parts:
        if start < end or length < 0:
            return None
        end = start + length
    real = end if known.real is None else known.real
    if end > real or sum(length for _, length in parts) > size:
        return None
    return Member(name=name, offset=data, stored_size=size, size=real, method=Codec.SPARSE, header_offset=at, parts=parts)


def _old_sparse(source: Source, block: bytes, data: int, known: _Extended) -> tuple[_Extended, int]:
    """The map of an old GNU header and its extension blocks, and where the data starts behind these."""
    pairs = [block[386 + index * 24 : 410 + index * 24] for index in range(4)]
    more = block[482] != 0
    while more and len(pairs) < _MAX_PARTS:
        extension = source.peek(data, BLOCK)
        if len(extension) < BLOCK:
            break
        pairs += [extension[index * 24 : index * 24 + 24] for index in range(21)]
        more, data = extension[504] != 0, data + BLOCK
    found = []
    for pair in pairs:
        start, length = _number(pair[:12]), _number(pair[12:])
        if start is None or length is None:
            found.append((0, -1))
        elif any(pair) and (length or not found or start >= found[-1][0]):
            found.append((start, length))
    return known._replace(parts=tuple(found), real=_number(block[483:495])), data


def _map_in_data(source: Source, data: int, size: int) -> tuple[Parts, int]:
    """The map of pax format 1.0: decimal lines before the data, padded to a block; and its size."""
    text = source.peek(data, min(size, 32 * _MAX_PARTS))
    lines = text.split(b"\n", 1)
    count = int(lines[0]) if lines[0].isdigit() and len(lines[0]) < 8 else -1
    words = text.split(b"\n", 2 * count + 1)[1 : 2 * count + 1] if 0 <= count <= _MAX_PARTS else []
    if count < 0 or len(words) < 2 * count or not all(word.isdigit() and len(word) < 20 for word in words):
        return ((0, -1),), 0
    numbers = [int(word) for word in words]
    used = len(lines[0]) + 1 + sum(len(word) + 1 for word in words)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True)), (used + BLOCK - 1) // BLOCK * BLOCK


def _checksum_fits(block: bytes) -> bool:
    """The sum of all bytes, those of the sum itself as blanks; some old programs add signed bytes."""
    stated = _number(block[148:156])
    plain = sum(block) - sum(block[148:156]) + 8 * 32
    if stated is None or stated == plain:
        return stated is not None
    return stated == plain - 256 * sum(1 for byte in (*block[:148], *block[156:]) if byte > 127)


def _number(field: bytes) -> int | None:
    """An octal field, or GNU base-256 when its first bit is set; None for anything else."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b" \0")
    return int(text or b"0", 8) if all(0x30 <= byte <= 0x37 for byte in text) else None


def _ustar_name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _pax(record: bytes, known: _Extended) -> _Extended:
    """The records of a pax header: ``LENGTH key=VALUE\\n``."""
    pairs: list[list[int]] = []
    for key, value in _pax_records(record):
        number = int(value) if value.isdigit() and len(value) < 20 else None
        if key == b"path":
            known = known._replace(name=known.name if known.in_data or known.parts is not None else _text(value))
        elif key == b"linkpath":
            known = known._replace(link=_text(value))
        elif key == b"size":
            known = known._replace(size=number)
        elif key == b"GNU.sparse.name":
            known = known._replace(name=_text(value))
        elif key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
            known = known._replace(real=number)
        elif key == b"GNU.sparse.major":
            known = known._replace(in_data=value == b"1")
        elif key == b"GNU.sparse.map":
            words = value.split(b",")
            sound = all(word.isdigit() and len(word) < 20 for word in words) and not len(words) % 2 and len(words) <= 2 * _MAX_PARTS
            numbers = [int(word) for word in words] if sound else [0, -1]
            known = known._replace(parts=tuple(zip(numbers[::2], numbers[1::2], strict=True)))
        elif key == b"GNU.sparse.offset" and number is not None:
            pairs.append([number, -1])
        elif key == b"GNU.sparse.numbytes" and number is not None and pairs:
            pairs[-1][1] = number
    return known._replace(parts=tuple((start, length) for start, length in pairs)) if pairs else known


def _pax_records(record: bytes) -> list[tuple[bytes, bytes]]:
    found = []
    at = 0
    while (space := record.find(b" ", at)) > 0 and record[at:space].isdigit() and space - at < 10:
        end = at + int(record[at:space])
        if end <= space:
            break
        key, _, value = record[space + 1 : end - 1].partition(b"=")
        found.append((key, value))
        at = end
    return found
