"""The CRC-32 of archive members, computed from their unpacked bytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from fatpatch.base.errors import FatpatchError, UnsupportedError
from fatpatch.base.limits import Limits
from fatpatch.base.source import Source
from fatpatch.binfmt.unpack import Workspace
from fatpatch.model.tree import Member


def crc_of(source: Source) -> int:
    """CRC-32 of all bytes."""
    crc = 0
    for chunk in source.chunks():
        crc = zlib.crc32(chunk, crc)
    return crc


def sum_problems(source: Source, members: Iterable[Member], limits: Limits) -> Iterator[str]:
    """Members that do not unpack, or not to what the directory says, each by its name.

    Those without a sum, and those of a codec that is not read, are skipped: the latter are named where the file is listed.
    """
    workspace = Workspace(limits, source.size)
    try:
        for member in members:
            if member.crc32 is None:
                continue
            try:
                content = workspace.open(source, member)
                crc = crc_of(content)
                workspace.release(content)
            except UnsupportedError:
                continue
            except FatpatchError as error:
                yield f"{member.name}: {error.message}"
                continue
            if crc != member.crc32:
                yield f"{member.name}: expected {member.crc32:#010x}, got {crc:#010x}"
    finally:
        workspace.close()
