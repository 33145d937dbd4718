"""Tar archives: ustar, GNU long names, pax paths (reference: POSIX.1-2017 pax, GNU tar manual). Members are read in place."""

from __future__ import annotations

from fatpatch.diagnostics import Diagnostics
from fatpatch.model import Container, Member
from fatpatch.source import Source

KIND = "tar"
BLOCK = 512
_MAX_MEMBERS = 200_000
_MAX_NAME_RECORD = 1 << 16
_REGULAR = (b"0", b"\0", b"7")


def probe(source: Source) -> bool:
    """Whether the first block is a tar header: its checksum fits (old archives have no magic)."""
    block = source.peek(0, BLOCK)
    return len(block) == BLOCK and block[0] != 0 and _checksum_fits(block)


def read(source: Source, locator: str, diagnostics: Diagnostics) -> Container:
    """All regular files, up to the end mark or the first block that is no header."""
    members: list[Member] = []
    at, long_name = 0, ""
    while (block := source.peek(at, BLOCK)) and any(block):
        size = _number(block[124:136]) if len(block) == BLOCK and _checksum_fits(block) else None
        if size is None:
            diagnostics.error(locator, at, "expected a header block with a right checksum", field="header")
            break
        if len(members) >= _MAX_MEMBERS:
            diagnostics.error(locator, at, f"more than {_MAX_MEMBERS} members: the rest is left out", field="header")
            break
        kind, data = block[156:157], at + BLOCK
        if kind in (b"L", b"x"):
            record = source.peek(data, min(size, _MAX_NAME_RECORD))
            long_name = _text(record) if kind == b"L" else _pax_path(record) or long_name
        elif kind in _REGULAR:
            name, long_name = long_name or _ustar_name(block), ""
            if data + size > source.size:
                message = f"{name[:80]!a} ends at {data + size:#x}, the archive at {source.size:#x}"
                diagnostics.error(locator, at + 124, message, field="size")
                break
            if not name.endswith("/"):
                members.append(Member(name=name, offset=data, stored_size=size, size=size, header_offset=at))
        elif kind not in (b"g", b"K"):
            long_name = ""
        at = data + (size + BLOCK - 1) // BLOCK * BLOCK
    return Container(kind=KIND, members=tuple(members))


def _checksum_fits(block: bytes) -> bool:
    told = _number(block[148:156])
    return told is not None and told == sum(block) - sum(block[148:156]) + 8 * 32


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


def _pax_path(record: bytes) -> str:
    """The path of a pax record list: ``LENGTH path=VALUE\\n``."""
    at = 0
    while (space := record.find(b" ", at)) > 0 and record[at:space].isdigit() and space - at < 10:
        end = at + int(record[at:space])
        if end <= space:
            break
        key, _, value = record[space + 1 : end - 1].partition(b"=")
        if key == b"path":
            return _text(value)
        at = end
    return ""
