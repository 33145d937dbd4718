"""One fatbin entry: its 64-byte header, its extension and its target (reference: CUDA fatbin, entry header)."""

from __future__ import annotations

import functools
import struct

from fatpatch.base.records import NamedTuple
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import codec_of, contradiction
from fatpatch.gpucode.cubin.header import identify
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import Codec, ImageKind
from fatpatch.model.tree import ImageEntry

HEADER = struct.Struct("<HHIQIIHHIIIQQQ")
LOOKAHEAD = 320
"""Bytes read at an entry: header, a usual extension, and the first bytes of the payload."""

MAX_HEADER_SIZE = 1 << 20
_MAX_SUB_HEADER = 1 << 16
KIND_NAMES = {number: (ImageKind(kind), prefix) for number, kind, prefix, _ in n.FATBIN_ENTRIES if kind}
_UNKNOWN = (ImageKind.UNKNOWN, "unknown_")
_NEEDS_ARCH = frozenset({n.KIND_PTX, n.KIND_ELF, n.KIND_NVVM, 0x10})


class Header(NamedTuple):
    """The fixed 64 bytes; field names follow formats/fatbin.py."""

    kind: int
    version: int
    header_size: int
    payload_size: int
    compressed_size: int
    options_offset: int
    minor: int
    major: int
    arch: int
    identifier_offset: int
    identifier_length: int
    flags: int
    key: int
    uncompressed_size: int


def plausible(header: Header) -> bool:
    """Whether these bytes can be an entry header at all: enough to hop over it."""
    return (
        n.ENTRY_HEADER_SIZE <= header.header_size <= MAX_HEADER_SIZE
        and header.header_size % 8 == 0
        and (header.version == n.ENTRY_VERSION or header.kind in KIND_NAMES)
    )


def is_filler(header: Header) -> bool:
    """Whether an entry only fills a place: kind 0, a plain header, and nothing in it but its size (reference: load rules, entry kinds)."""
    return (
        header.kind == n.KIND_FILLER
        and header.version == n.ENTRY_VERSION
        and header.header_size == n.ENTRY_HEADER_SIZE
        and not any(header[4:])
    )


class Label(NamedTuple):
    """What the fixed fields of a header say, sizes aside; ``complaints`` are (level, offset, field, message)."""

    kind: ImageKind
    target: str
    codec: Codec
    code_version: str
    complaints: tuple[tuple[str, int, str, str], ...]


@functools.lru_cache(4096)
def label_of(kind: int, version: int, minor: int, major: int, arch: int, flags: int) -> Label:
    """The label of a header; the few that a file has are made once.

    ``sm_90a``, ``compute_75``, ``lto_90`` are targets; the a flag wins over f (measured on a driver).
    """
    kind_name, prefix = KIND_NAMES.get(kind, _UNKNOWN)
    suffix = "a" if flags & n.FLAG_ARCH_SPECIFIC else "f" if flags & n.FLAG_FAMILY_SPECIFIC else ""
    complaints = []
    if version != n.ENTRY_VERSION:
        complaints.append(("warning", 2, "entry version", f"expected {n.ENTRY_VERSION:#x}, got {version:#x}"))
    if kind_name == ImageKind.UNKNOWN:
        complaints.append(("warning", 0, "kind", f"unknown kind {kind:#x}: kept, not looked into"))
    if arch in (0, 0xFFFFFFFF) and kind in _NEEDS_ARCH:
        message = f"expected an SM number, got {arch:#x}: the driver refuses the whole module (error 999)"
        complaints.append(("error", 0x1C, "arch", message))
    return Label(kind_name, f"{prefix}{arch}{suffix}", codec_of(flags), f"{major}.{minor}", tuple(complaints))


def read_entry(header: Header, label: Label, data: bytes, offset: int, locator: str, diagnostics: Diagnostics) -> ImageEntry:
    """The image of a plausible header; ``data`` starts at the header and holds all of it and some of the payload."""
    kind, _, header_size, payload_size, compressed_size, options_offset, _, _, _, id_offset, id_length, flags, _, unpacked = header
    kind_name, target, codec, code_version, complaints = label
    for level, at, field, message in complaints:
        diagnostics.add(level, locator, offset + at, message, field=field)
    prefix = data[header_size : header_size + n.ENTRY_HEADER_SIZE]
    readable = not flags & n.FLAG_OBFUSCATED
    producer = None
    if codec == Codec.NONE:
        size = stored = payload_size
        blob_size = None
        producer = _check_plain(header, prefix, offset, locator, diagnostics)
    else:
        size = blob_size = unpacked
        stored = compressed_size
        if compressed_size > payload_size:
            message = f"expected at most the stored size {payload_size:#x}, got {compressed_size:#x}"
            diagnostics.error(locator, offset + 0x10, message, field="compressed size")
            stored, readable = payload_size, False
        elif readable and kind != n.KIND_NVVM and (wrong := contradiction(codec, prefix, stored, unpacked)) is not None:
            at = 0x38 if wrong[0] == "uncompressed size" else 0x28
            diagnostics.error(locator, offset + at, wrong[1], field=wrong[0])
            readable = False
    identifier = options = None
    if id_offset or id_length:
        identifier = _identifier(header, data, offset, locator, diagnostics)
    if options_offset:
        options = _options(header, data, offset, locator, diagnostics)
    return tuple.__new__(ImageEntry, (  # all fields in their order: by name, this call alone would be a tenth of a listing
        locator, kind_name, target, code_version, codec, payload_size, size, offset, offset + header_size, stored,
        blob_size, None, producer, flags, kind, identifier, options, readable, None,
    ))  # fmt: skip


def read_concatenated(outer: ImageEntry, header: Header, data: bytes, diagnostics: Diagnostics) -> list[ImageEntry]:
    """The images inside a concatenated entry (kind 0x100): sub-headers that name ranges of one shared blob.

    Sub-header length is not stored: 64 bytes, its identifier, its options block (reference: CUDA fatbin, concatenated entry).
    """
    images: list[ImageEntry] = []
    at, end = header.options_offset, header.header_size
    if at < n.ENTRY_HEADER_SIZE or at + 8 > end:
        diagnostics.error(outer.locator, outer.offset + 0x14, f"no room for the sub-header table at {at:#x}", field="options offset")
        return images
    count, length = struct.unpack_from("<II", data, at)
    end = min(end, at + length)
    at += 8
    blob, total = outer.size or 0, 0
    for index in range(count):
        place = outer.offset + at
        if at + n.ENTRY_HEADER_SIZE > end:
            message = f"{count} sub-headers announced, room for {index}"
            diagnostics.error(outer.locator, outer.offset + header.options_offset, message, field="count")
            break
        sub = Header._make(HEADER.unpack_from(data, at))
        label = label_of(sub.kind, sub.version, sub.minor, sub.major, sub.arch, sub.flags)
        locator = f"{outer.locator}!{label.target}[{index}]"
        start, size = sub.header_size, sub.payload_size  # here: offset of the image in the blob, and its size
        readable = outer.readable and start + size <= blob
        if start + size > blob:
            diagnostics.error(locator, place + 4, f"image ends at {start + size:#x}, the blob at {blob:#x}", field="image offset")
        reach = min(end, at + _MAX_SUB_HEADER)
        view = sub._replace(header_size=reach - at)
        sub_data = data[at:reach]
        total += size
        if total > 2 * blob:
            diagnostics.error(locator, place + 4, "the images overlap: the rest is left out", field="image size")
            break
        identifier = _identifier(view, sub_data, place, locator, diagnostics)
        options = _options(view, sub_data, place, locator, diagnostics)
        images.append(
            ImageEntry(
                locator=locator,
                kind=label.kind,
                target=label.target,
                code_version=label.code_version,
                compression=outer.compression,
                stored_size=None,
                size=size,
                offset=place,
                data_offset=outer.data_offset,
                stored_bytes=outer.stored_bytes,
                blob_size=outer.blob_size,
                within=(start, start + size),
                flags=sub.flags,
                kind_code=sub.kind,
                identifier=identifier,
                options=options,
                readable=readable,
            )
        )
        at += n.ENTRY_HEADER_SIZE
        if sub.identifier_length:
            at += (sub.identifier_length + 8) & ~7
        if sub.options_offset:
            at += 8
            options_length = struct.unpack_from("<I", data, at - 4)[0] if at <= end else 0
            at += (options_length + 8) & ~7
    return images


def _check_plain(header: Header, prefix: bytes, offset: int, locator: str, diagnostics: Diagnostics) -> str | None:
    """Cross-check the first bytes of a payload that is not compressed; the producer when the cubin's header names it."""
    payload = offset + header.header_size
    if header.kind == n.KIND_PTX:
        if prefix[:4] in (n.ZSTD_MAGIC, n.ELF_MAGIC):
            what = "a cubin" if prefix[:4] == n.ELF_MAGIC else "zstd data"
            diagnostics.error(locator, payload, f"expected PTX text, got {what}", field="payload")
        return None
    if header.kind != n.KIND_ELF:
        return None
    if prefix[:4] != n.ELF_MAGIC:
        diagnostics.error(locator, payload, f"expected a cubin (7f454c46), got {prefix[:4].hex() or 'nothing'}", field="payload")
        return None
    identity = identify(prefix)
    if identity is None:
        diagnostics.error(locator, payload, "the cubin ends inside its ELF header", field="payload")
        return None
    for field, at, message in () if identity.sound(header.payload_size) else identity.complaints(header.payload_size):
        diagnostics.error(locator, payload + at, message, field=field)
    if identity.arch is not None and identity.arch != header.arch and header.arch not in (0, 0xFFFFFFFF):
        diagnostics.error(locator, offset + 0x1C, f"the entry says sm_{header.arch}, the cubin is sm_{identity.arch}", field="arch")
    if identity.accelerated and not header.flags & n.FLAG_ARCH_SPECIFIC:
        diagnostics.warning(locator, offset + 0x28, "the cubin is arch-specific (a), the entry flags do not say so", field="flags")
    return identity.toolkit


def _identifier(header: Header, data: bytes, offset: int, locator: str, diagnostics: Diagnostics) -> str | None:
    start, length = header.identifier_offset, header.identifier_length
    if not start and not length:
        return None
    if start < n.ENTRY_HEADER_SIZE or start + length > header.header_size:
        message = f"bytes {start:#x} to {start + length:#x} lie outside the header of {header.header_size:#x}"
        diagnostics.error(locator, offset + 0x20, message, field="identifier offset")
        return None
    return data[start : start + length].decode("utf-8", "backslashreplace")


def _options(header: Header, data: bytes, offset: int, locator: str, diagnostics: Diagnostics) -> str | None:
    """The ptxas or cicc options text; None for a cubin, whose block is a copy of its .nv.compat section."""
    at = header.options_offset
    if not at:
        return None
    if at < n.ENTRY_HEADER_SIZE or at + 8 > header.header_size:
        message = f"the block at {at:#x} lies outside the header of {header.header_size:#x}"
        diagnostics.error(locator, offset + 0x14, message, field="options offset")
        return None
    if header.kind in (n.KIND_ELF, n.KIND_CONCATENATED):
        return None
    start, length = struct.unpack_from("<II", data, at)
    if start + length > header.header_size:
        message = f"text {start:#x} to {start + length:#x} lies outside the header of {header.header_size:#x}"
        diagnostics.error(locator, offset + at, message, field="options text")
        return None
    return data[start : start + length].decode("utf-8", "backslashreplace").rstrip("\0")
