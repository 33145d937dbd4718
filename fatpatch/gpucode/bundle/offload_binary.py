"""LLVM's OffloadBinary: device images, each with its triple and arch (reference: llvm/Object/OffloadBinary.h, versions 1 to 3)."""

from __future__ import annotations

import struct

from fatpatch.base.errors import FatpatchError, FormatError
from fatpatch.base.locator import escape, join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.bundle.read import kind_of
from fatpatch.gpucode.codec import unpack_prefix
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ImageKind, Vendor
from fatpatch.model.tree import ImageEntry

MAGIC = n.OFFLOAD_BINARY_MAGIC
HEADER = struct.Struct("<4sIQQQ")
ENTRY = struct.Struct("<HHIQQQQ")
STRING = struct.Struct("<QQ")
_VERSIONS = (1, 2, 3)
_METADATA = 0x1
_MAX_ENTRIES = 4096
_MAX_DEPTH = 4
_MAX_TABLES = 1 << 20
_MAX_STRINGS = 64
_MAX_TEXT = 4096
_BITCODE, _CUBIN, _FATBIN, _PTX = 2, 3, 4, 5


class OffloadBinary(NamedTuple):
    """The images of one OffloadBinary, the offsets of fatbins in it, and the offset behind it."""

    images: tuple[ImageEntry, ...]
    fatbins: tuple[int, ...]
    vendor: Vendor
    end: int


class _Body(NamedTuple):
    """Where the entries of an OffloadBinary are. ``data``: its bytes from the magic on, as many as tables and strings may take.

    ``size``: bytes of the whole, unpacked; a compressed one has its codec, and the stored range of what follows the header.
    """

    data: bytes
    size: int
    string_size: int
    entries: int
    entry_count: int
    codec: Codec = Codec.NONE
    stored: tuple[int, int] = (0, 0)


def sane(source: Source, offset: int, limit: int) -> bool:
    """Whether the magic at ``offset`` starts an OffloadBinary: strict, for places that only a search has found."""
    head = source.peek(offset, HEADER.size + 8)
    if len(head) < HEADER.size:
        return False
    _, version, size, entries, count = HEADER.unpack_from(head)
    fits: bool = HEADER.size <= entries < size <= limit - offset
    return fits and version in _VERSIONS and (count >= ENTRY.size if version == 1 else 0 < count <= _MAX_ENTRIES)


def read_binary(source: Source, offset: int, limit: int, locator: str, diagnostics: Diagnostics, depth: int = 0) -> OffloadBinary | None:
    """Read the OffloadBinary at ``offset``; None, with a diagnostic, when nothing tells where it ends."""
    head = source.peek(offset, HEADER.size)
    if len(head) < HEADER.size or head[:4] != MAGIC:
        diagnostics.error(locator, offset, f"expected the magic 10ff10ad, got {head[:4].hex()}", field="offload binary magic")
        return None
    _, version, size, entries, _ = HEADER.unpack(head)
    if not HEADER.size <= size <= limit - offset:
        diagnostics.error(locator, offset + 8, f"expected at most {limit - offset:#x}, got {size:#x}", field="offload binary size")
        return None
    end = offset + size
    if version not in _VERSIONS:
        message = f"expected version 1 to {_VERSIONS[-1]}, got {version}: not read"
        diagnostics.warning(locator, offset + 4, message, field="offload binary version")
        return OffloadBinary((), (), Vendor.AMD, end)
    try:
        body = _body(source, offset, head, version)
    except FatpatchError as error:
        diagnostics.error(locator, offset + entries, error.message, field="offload binary")
        return OffloadBinary((), (), Vendor.AMD, end)
    images: list[ImageEntry] = []
    fatbins: list[int] = []
    vendor, seen = Vendor.AMD, dict[str, int]()
    for index in range(body.entry_count):
        at = body.entries + index * ENTRY.size
        if at + ENTRY.size > min(body.size, len(body.data)):
            diagnostics.error(locator, offset + 16, f"an entry at {at:#x} does not fit", field="entry offset")
            break
        image_kind, _, flags, strings_at, count, image_offset, image_size = ENTRY.unpack_from(body.data, at)
        if flags & _METADATA and not image_size:
            continue
        strings = _strings(body, strings_at, count)
        triple = strings.get("triple", "")
        kind, target, vendor = _names(image_kind, triple, strings.get("arch", ""))
        seen[target] = seen.get(target, 0) + 1
        label = escape(target) if seen[target] == 1 else f"{escape(target)}#{seen[target]}"
        whole = image_offset + image_size <= body.size
        plain = body.codec == Codec.NONE
        start = offset + image_offset
        if not whole:
            message = f"{label} ends at {image_offset + image_size:#x}, its container at {body.size:#x}"
            diagnostics.error(join(locator, label), offset + (at if plain else 0), message, field="image size")
        elif plain and image_kind == _FATBIN:
            fatbins.append(start)
            continue
        elif plain and depth < _MAX_DEPTH and source.peek(start, 4) == MAGIC and sane(source, start, start + image_size):
            inner = read_binary(source, start, start + image_size, join(locator, label), diagnostics, depth + 1)
            if inner is not None:
                images += inner.images
                fatbins += inner.fatbins
                continue
        first = source.peek(start, 4) if plain else body.data[image_offset : image_offset + 4]
        packed = image_offset - body.entries
        images.append(
            ImageEntry(
                locator=join(locator, label),
                kind=kind_of(first, kind),
                target=escape(target),
                code_version=None,
                compression=body.codec,
                stored_size=image_size if plain else None,
                size=image_size,
                offset=offset + at if plain else offset,
                data_offset=start if plain else body.stored[0],
                stored_bytes=image_size if plain else body.stored[1] - body.stored[0],
                blob_size=None if plain else body.size - body.entries,
                within=None if plain else (packed, packed + image_size),
                kind_code=image_kind,
                options=f"flags {flags:#x}" if flags else None,
                identifier=escape(triple) or None,
                readable=whole,
            )
        )
    return OffloadBinary(tuple(images), tuple(fatbins), vendor, end)


def _body(source: Source, offset: int, head: bytes, version: int) -> _Body:
    """The tables of a version: 1 has one entry and strings without a size, 2 has several, 3 may be compressed behind its header."""
    _, _, size, entries, count = HEADER.unpack(head)
    if version == 1:
        if count < ENTRY.size:
            raise FormatError(f"an entry of {count} bytes, expected {ENTRY.size}")
        return _Body(source.peek(offset, min(size, _MAX_TABLES)), size, 16, entries, 1)
    if count > _MAX_ENTRIES:
        raise FormatError(f"{count} entries announced, limit {_MAX_ENTRIES}")
    inflated = int.from_bytes(source.peek(offset + HEADER.size, 8), "little") if version >= 3 else 0
    if not inflated:
        return _Body(source.peek(offset, min(size, _MAX_TABLES)), size, 24, entries, count)
    if not HEADER.size <= entries <= min(size, inflated):
        raise FormatError(f"its entries are at {entries:#x}, it ends at {size:#x}")
    start, end = offset + entries, offset + size
    first = source.peek(start, min(end - start, _MAX_TABLES))
    codec = Codec.ZSTD if first[:4] == n.ZSTD_MAGIC else Codec.ZLIB
    tables = unpack_prefix(first, codec, min(inflated - entries, _MAX_TABLES))
    if not tables:
        raise FormatError(f"{codec} data is damaged")
    return _Body(bytes(entries) + tables, inflated, 24, entries, count, codec, (start, end))


def _strings(body: _Body, at: int, count: int) -> dict[str, str]:
    found = {}
    for index in range(min(count, _MAX_STRINGS)):
        row = body.data[at + index * body.string_size : at + (index + 1) * body.string_size]
        if len(row) < body.string_size:
            break
        key, value = STRING.unpack_from(row)
        size = int.from_bytes(row[16:24], "little") if len(row) > 16 else _MAX_TEXT
        found[_text(body, key, _MAX_TEXT)] = _text(body, value, size)
    return found


def _text(body: _Body, at: int, size: int) -> str:
    raw = body.data[at : min(at + min(size, _MAX_TEXT), body.size)]
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _names(image_kind: int, triple: str, arch: str) -> tuple[ImageKind, str, Vendor]:
    """Kind, target and vendor by the triple and arch."""
    if triple.startswith(("amdgcn", "amdgpu")):
        return (ImageKind.BITCODE if image_kind == _BITCODE else ImageKind.HSACO), arch or triple, Vendor.AMD
    if triple.startswith("nvptx"):
        kind = {_BITCODE: ImageKind.BITCODE, _PTX: ImageKind.PTX}.get(image_kind, ImageKind.SASS)
        return kind, arch.replace("sm_", "compute_") if kind == ImageKind.PTX else arch or triple, Vendor.NVIDIA
    if triple.startswith("spir"):
        target = triple.split("-")[0]
        return (ImageKind.ZEBIN if "_gen" in target else ImageKind.SPIRV), arch or target, Vendor.INTEL
    return ImageKind.UNKNOWN, arch or triple or "unknown", Vendor.AMD
