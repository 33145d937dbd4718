"""The CRC-32 of archive members, computed from their unpacked bytes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from fatpatch.base.errors import FatpatchError, UnsupportedError
from fatpatch.base.limits import Limits
from fatpatch.base.source import Source
from fatpatch.binfmt.crc import crc_of
from fatpatch.binfmt.unpack import Workspace
from fatpatch.model.tree import Member


def sum_problems(source: Source, members: Iterable[Member], limits: Limits, unpacked: Mapping[str, Source] | None = None) -> Iterator[str]:
    """Members that do not unpack, or not to what the directory says, each by its name.

    Those without a sum, and those of a codec that is not read, are skipped: the latter are named where the file is listed.
    ``unpacked``: bytes that are at hand, by the name of the member; a member is only unpacked again where they have another sum.
    """
    workspace = Workspace(limits, source.size)
    try:
        for member in members:
            if member.crc32 is None or _is_right(member, (unpacked or {}).get(member.name)):
                continue
            try:
                crc = workspace.crc32(source, member)
            except UnsupportedError:
                continue
            except FatpatchError as error:
                yield f"{member.name}: {error.message}"
                continue
            if crc != member.crc32:
                yield f"{member.name}: expected {member.crc32:#010x}, got {crc:#010x}"
    finally:
        workspace.close()


def _is_right(member: Member, content: Source | None) -> bool:
    """Whether the bytes are those of the member, by size and sum."""
    if content is None or content.size != member.size:
        return False
    right = crc_of(content.chunks()) == member.crc32
    content.idle()
    return right
