"""Headers of fatbin entries in a part of a stream, in which some bytes are not known."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

from fatpatch.base.patterns import lazy_pattern
from fatpatch.binfmt.deflate import DeflatePart
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.entry import HEADER, Header, label_of, plausible
from fatpatch.model.kinds import Codec, ImageKind
from fatpatch.model.tree import ImageEntry

_KINDS: Final = (n.KIND_ELF, n.KIND_PTX)
_USUAL: Final = b"\0" + struct.pack("<HI", n.ENTRY_VERSION, n.ENTRY_HEADER_SIZE)
_BEGIN = lazy_pattern(rb"(?=[\x00-\x02]\x00[\x00\x01][\x00\x01][\x00\x40-\xf8]\x00\x00\x00.{20}[\x14-\xc8]\x00\x00\x00)", re.DOTALL)
_ARCH: Final = 28
_FLAGS: Final = 40
_FLAGS_END: Final = 43
_LONGEST: Final = 512
_ARCHS: Final = (20, 200)


def candidates(part: DeflatePart) -> Iterator[int]:
    """Where entry headers of SASS and PTX may begin: kind, version and the usual size of a header, each byte of which may be unknown."""
    return (found.start() for found in _BEGIN.finditer(part.data))


Flags = dict[tuple[int, int], int]
"""The flags of images by their kind and architecture, as they were seen elsewhere in the library."""


def header_at(part: DeflatePart, at: int, seen: Flags | None = None, *, sure: bool = False) -> Header | None:
    """The entry header at a place, when it can be one. Unknown bytes of the version and the header's size are those that they must be.

    Its architecture is known, and its flags are, or were ``seen`` with another image. Of other bytes half are known, unless it is ``sure``
    that a header is there: then what is wrong with the sizes shows in their sum.
    """
    if not part.likely(at, at + HEADER.size) or not part.known(at + _ARCH, at + _ARCH + 1):
        return None
    data = bytearray(part.data[at : at + HEADER.size])
    if not sure and sum(map(int.__eq__, data, part.other[at : at + HEADER.size])) < HEADER.size // 2:
        return None
    if part.data[at] != part.other[at]:  # PTX has the version of its language there, 3.0 and up, where SASS has 1.x
        if not part.known(at + 26, at + 28):
            return None
        data[0] = n.KIND_PTX if int.from_bytes(data[26:28], "little") > 2 else n.KIND_ELF
    if data[0] not in _KINDS:
        return None
    for index, usual in enumerate(_USUAL, 1):
        if part.data[at + index] != part.other[at + index]:
            data[index] = usual
    if not part.known(at + _FLAGS, at + _FLAGS_END) and not _filled_in(data, part, at, seen or {}):
        return None
    header = Header._make(HEADER.unpack(data))
    usual_header = plausible(header) and header.version == n.ENTRY_VERSION and header.header_size <= _LONGEST
    return header if usual_header and 0 < header.payload_size < 1 << 31 and _ARCHS[0] <= header.arch <= _ARCHS[1] else None


def _filled_in(data: bytearray, part: DeflatePart, at: int, seen: Flags) -> bool:
    """Fill in the flags that an image of the same kind and architecture has, where they agree with what is known of them."""
    header = Header._make(HEADER.unpack(data))
    flags = seen.get((header.kind, header.arch))
    if flags is None:
        return False
    for index, byte in enumerate(flags.to_bytes(8, "little"), _FLAGS):
        if part.known(at + index, at + index + 1) and data[index] != byte:
            return False
        data[index] = byte
    return True


def entry_of(header: Header, locator: str, index: int) -> ImageEntry:
    """The image of a header, as far as the header says; its offsets are its index."""
    label = label_of(header.kind, header.version, header.minor, header.major, header.arch, header.flags)
    plain = label.codec == Codec.NONE
    return ImageEntry(
        locator=locator,
        kind=label.kind,
        target=label.target,
        code_version=label.code_version if label.kind in (ImageKind.PTX, ImageKind.SASS) else None,
        compression=label.codec,
        stored_size=header.payload_size,
        size=header.payload_size if plain else header.uncompressed_size,
        offset=index,
        data_offset=index,
        stored_bytes=header.payload_size if plain else header.compressed_size,
        flags=header.flags,
        kind_code=header.kind,
    )
