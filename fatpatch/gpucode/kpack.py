"""ROCm kernel packs: the device code that was split from libraries, and the reference that those keep (reference: rocm-kpack)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.locator import escape, join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.gpucode.codec import zstd_content_size
from fatpatch.gpucode.metadata import unpacked
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Payload

HEADER = struct.Struct("<4sIQ")
_VERSION = 1
_MAX_TOC = 16 << 20
_MAX_REFERENCE = 1 << 13
_FRAME_HEAD = 18
_SIZE = struct.Struct("<I")
_SHOWN = 4


class KpackReference(NamedTuple):
    """Where a split library expects its code: the name it has in a pack, and the paths of the packs."""

    name: str
    paths: tuple[str, ...]
    size: int

    def words(self) -> str:
        """What to tell a user."""
        where = ", ".join(self.paths[:_SHOWN]) or "no path"
        return f"its device code is in a separate kernel pack, as {self.name}: {where} (@GFXARCH@ is the GPU's target)"


def read_reference(source: Source, offset: int) -> KpackReference | None:
    """The reference at ``offset``, which ends by itself; None when it is none."""
    import msgpack

    stream = msgpack.Unpacker(max_buffer_size=_MAX_REFERENCE)
    stream.feed(source.peek(offset, _MAX_REFERENCE))
    try:
        document = stream.unpack()
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("kpack_search_paths"), list):
        return None
    paths = tuple(escape(path) for path in document["kpack_search_paths"] if isinstance(path, str))
    return KpackReference(escape(str(document.get("kernel_name", ""))), paths, stream.tell())


def read_kpack(source: Source, locator: str, limit: int, diagnostics: Diagnostics) -> tuple[Payload, ...]:
    """One payload a library, one image a target; FormatError when the table of contents cannot be read."""
    head = source.peek(0, HEADER.size)
    if len(head) < HEADER.size:
        raise FormatError("ends inside its header", offset=0, field="kpack header")
    _, version, toc_at = HEADER.unpack(head)
    if version != _VERSION:
        raise FormatError(f"expected version 1, got {version}", offset=4, field="kpack version")
    if not HEADER.size <= toc_at < source.size:
        raise FormatError(f"expected an offset below {source.size:#x}, got {toc_at:#x}", offset=8, field="toc_offset")
    if source.size - toc_at > _MAX_TOC:
        raise LimitError(f"{source.size - toc_at:#x} bytes, more than {_MAX_TOC:#x}", offset=toc_at, field="table of contents")
    table = unpacked(source.peek(toc_at, source.size - toc_at), "table of contents")
    scheme = table.get("compression_scheme", "none")
    known = scheme in (Codec.NONE, "zstd-per-kernel")
    places = dict(_blobs(table) if scheme == Codec.NONE else _frames(source, table))
    if not known:
        diagnostics.error(
            locator, toc_at, f"the compression {escape(str(scheme))} is not known: listed, not read", field="compression_scheme"
        )
        places = {}
    payloads: list[Payload] = []
    room = limit
    for library, objects in _maps(table.get("toc")):
        where = join(locator, library)
        codec = (Codec.NONE if scheme == Codec.NONE else Codec.ZSTD) if known else None
        images = tuple(islice(_images(source, where, objects, places, codec, diagnostics), max(room, 0)))
        room -= len(images)
        payloads.append(Payload(
            locator=where, vendor=Vendor.AMD, kind=ModuleKind.KPACK, section=None, offset=0, size=source.size, found_by=("file",),
            images=images, format=escape(str(scheme)),
        ))  # fmt: skip
    if room <= 0:
        diagnostics.error(locator, toc_at, f"more than {limit} images: the rest is left out")
    return tuple(payloads)


def _images(
    source: Source, where: str, objects: dict[str, Any], places: dict[int, tuple[int, int]], codec: Codec | None, diagnostics: Diagnostics
) -> Iterator[ImageEntry]:
    """The objects of one library; each place is given out once. ``codec`` is None when it is not known."""
    for target, facts in _maps(objects):
        label = escape(target)
        ordinal, size = facts.get("ordinal"), facts.get("original_size")
        place = places.pop(ordinal, None) if isinstance(ordinal, int) else None
        whole = place is not None and place[0] + place[1] <= source.size
        start, stored = place if place is not None and whole else (0, 0)
        said = size if isinstance(size, int) and size >= 0 else None
        real = stored if codec == Codec.NONE else zstd_content_size(source.peek(start, _FRAME_HEAD)) if codec else None
        if codec and not whole:
            diagnostics.error(join(where, label), None, f"object {escape(str(ordinal))} is not in the file, or another's", field="ordinal")
        elif whole and said is not None and real is not None and said != real:
            diagnostics.error(join(where, label), start, f"expected {real:#x} bytes, its entry says {said:#x}", field="original_size")
        known = said if real is None else real
        yield ImageEntry(
            locator=join(where, label),
            kind=ImageKind.HSACO if facts.get("type", ImageKind.HSACO) == ImageKind.HSACO else ImageKind.UNKNOWN,
            target=label,
            code_version=None,
            compression=codec or Codec.NONE,
            stored_size=stored if whole else None,
            size=known,
            offset=start,
            data_offset=start,
            stored_bytes=stored,
            blob_size=known if codec == Codec.ZSTD else None,
            readable=bool(codec) and whole,
        )


def _maps(value: object) -> Iterator[tuple[str, dict[str, Any]]]:
    """The entries of a map whose keys are text and whose values are maps."""
    if isinstance(value, dict):
        yield from ((key, item) for key, item in value.items() if isinstance(key, str) and isinstance(item, dict))


def _blobs(table: dict[str, Any]) -> Iterator[tuple[int, tuple[int, int]]]:
    """(ordinal, (offset, size)) of objects stored as they are."""
    blobs = table.get("blobs")
    for ordinal, blob in enumerate(blobs if isinstance(blobs, list) else []):
        offset, size = (blob.get("offset"), blob.get("size")) if isinstance(blob, dict) else (None, None)
        if isinstance(offset, int) and isinstance(size, int) and offset >= 0 and size >= 0:
            yield ordinal, (offset, size)


def _frames(source: Source, table: dict[str, Any]) -> Iterator[tuple[int, tuple[int, int]]]:
    """(ordinal, (offset, size)) of objects that are a zstd frame each, back to back, each behind its size."""
    start, size = table.get("zstd_offset"), table.get("zstd_size")
    if not isinstance(start, int) or not isinstance(size, int) or start < 0 or size < 0:
        return
    end = min(start + size, source.size)
    count = int.from_bytes(source.peek(start, _SIZE.size), "little")
    at = start + _SIZE.size
    for ordinal in range(min(count, (end - start) // _SIZE.size)):
        length = int.from_bytes(source.peek(at, _SIZE.size), "little")
        if at + _SIZE.size + length > end:
            return
        yield ordinal, (at + _SIZE.size, length)
        at += _SIZE.size + length
