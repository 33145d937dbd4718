"""What ends a PE file: its signature, which an edit voids, and its checksum."""

from __future__ import annotations

import struct

from fatpatch.base.errors import EditError
from fatpatch.base.overlay import Overlay, Write
from fatpatch.base.source import Source
from fatpatch.binfmt.pe.authenticode import signature_of
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.binfmt.pe.tables import CHECKSUM, SECURITY
from fatpatch.edit.host.host import Options

_LONG = struct.Struct("<I")


def sealed(pe: PeFile, overlay: Overlay) -> Overlay:
    """The edited file with its checksum made right, where it states one."""
    if not pe.long(CHECKSUM):
        return overlay
    at = pe.optional + CHECKSUM
    right = Write.of(at, _LONG.pack(checksum(overlay.source(), at)))
    return Overlay.of(overlay.base, [*overlay.writes, right], overlay.tail, overlay.kept)


def without_signature(pe: PeFile, options: Options) -> tuple[int, list[Write], list[str]]:
    """Bytes to keep, the writes that drop the Authenticode table, and what to say; EditError without leave to drop it."""
    offset, size = pe.directory(SECURITY)
    if not offset:
        return pe.source.size, [], []
    if not options.drop_signature:
        hint = "--drop-signature removes the signature; sign the result again if your users check it"
        signature = signature_of(pe.source)
        words = f" ({signature.words()})" if signature is not None else ""
        message = f"carries an Authenticode signature, which any change makes invalid{words}"
        raise EditError(message, locator=pe.locator, offset=offset, hint=hint)
    if not max(section.offset + section.raw_size for section in pe.sections) <= offset <= pe.source.size:
        raise EditError("its signature does not lie behind its sections", locator=pe.locator, offset=offset)
    end = offset + size + -(offset + size) % 8
    kept = offset if end >= pe.source.size else pe.source.size
    note = "SIGNATURE REMOVED: the file is no longer signed; Windows and virus scanners may say so"
    return kept, [Write.of(pe.directory_at(SECURITY), bytes(8))], [note]


def checksum(source: Source, at: int) -> int:
    """The PE checksum of a file whose checksum field is at ``at``: the 16-bit words added with end-around carry, plus the size.

    2**16 is 1 modulo 65535, so the remainder of a chunk as one number is the folded sum of its words.
    """
    total, offset = 0, 0
    for chunk in source.chunks():
        total += int.from_bytes(chunk, "little") << 8 * (offset & 1)
        total %= 0xFFFF
        offset += len(chunk)
    field = source.read(at, 4)
    total = (total - (int.from_bytes(field, "little") << 8 * (at & 1))) % 0xFFFF
    return (total or 0xFFFF) + source.size


def checksum_field(pe: PeFile) -> tuple[int, int]:
    """The checksum that a file states, and the one it should."""
    return pe.long(CHECKSUM), checksum(pe.source, pe.optional + CHECKSUM)
