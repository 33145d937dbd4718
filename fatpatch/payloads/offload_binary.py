"""LLVM's OffloadBinary: one device image with its triple and arch (reference: llvm/Object/OffloadBinary.h, version 1)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from fatpatch.diagnostics import Diagnostics
from fatpatch.formats import numbers as n
from fatpatch.locator import escape, join
from fatpatch.model import Image
from fatpatch.payloads.offload_bundle import kind_of
from fatpatch.source import Source

MAGIC = n.OFFLOAD_BINARY_MAGIC
HEADER = struct.Struct("<4sIQQQ")
ENTRY = struct.Struct("<HHIQQQQ")
STRING = struct.Struct("<QQ")
_VERSION = 1
_MAX_STRINGS = 64
_MAX_TEXT = 4096
_BITCODE, _CUBIN, _FATBIN, _PTX = 2, 3, 4, 5


class OffloadBinary(NamedTuple):
    """The image of one OffloadBinary, or the offset of the fatbin in it; None and None when it could not be read."""

    image: Image | None
    fatbin: int | None
    vendor: str
    end: int


def sane(source: Source, offset: int, limit: int) -> bool:
    """Whether the magic at ``offset`` starts an OffloadBinary: strict, for places that only a search has found."""
    head = source.peek(offset, HEADER.size)
    if len(head) < HEADER.size:
        return False
    _, version, size, entry_offset, entry_size = HEADER.unpack(head)
    fits: bool = HEADER.size <= entry_offset < size <= limit - offset
    return fits and version == _VERSION and entry_size >= ENTRY.size


def read_binary(source: Source, offset: int, limit: int, locator: str, diagnostics: Diagnostics) -> OffloadBinary | None:
    """Read the OffloadBinary at ``offset``; None, with a diagnostic, when nothing tells where it ends."""
    head = source.peek(offset, HEADER.size)
    if len(head) < HEADER.size or head[:4] != MAGIC:
        diagnostics.error(locator, offset, f"expected the magic 10ff10ad, got {head[:4].hex()}", field="offload binary magic")
        return None
    _, version, size, entry_offset, entry_size = HEADER.unpack(head)
    if not HEADER.size <= size <= limit - offset:
        diagnostics.error(locator, offset + 8, f"expected at most {limit - offset:#x}, got {size:#x}", field="offload binary size")
        return None
    end = offset + size
    if version != _VERSION:
        diagnostics.error(locator, offset + 4, f"expected version 1, got {version}: not read", field="offload binary version")
        return OffloadBinary(None, None, "amd", end)
    entry = source.peek(offset + entry_offset, ENTRY.size)
    if entry_size < ENTRY.size or entry_offset + ENTRY.size > size or len(entry) < ENTRY.size:
        diagnostics.error(locator, offset + 16, f"an entry at {entry_offset:#x} does not fit", field="entry offset")
        return OffloadBinary(None, None, "amd", end)
    image_kind, _, flags, strings_at, count, image_offset, image_size = ENTRY.unpack(entry)
    strings = _strings(source, offset, size, strings_at, count)
    start = offset + image_offset
    whole = image_offset + image_size <= size
    triple = strings.get("triple", "")
    kind, target, vendor = _names(image_kind, triple, strings.get("arch", ""))
    label = escape(target)
    if not whole:
        message = f"{label} ends at {image_offset + image_size:#x}, its container at {size:#x}"
        diagnostics.error(join(locator, label), offset + entry_offset, message, field="image size")
    elif image_kind == _FATBIN:
        return OffloadBinary(None, start, "nvidia", end)
    image = Image(
        locator=join(locator, label),
        kind=kind_of(source.peek(start, 4), kind),
        target=label,
        code_version=None,
        compression="none",
        stored_size=image_size,
        size=image_size,
        offset=offset + entry_offset,
        data_offset=start,
        stored_bytes=image_size,
        kind_code=image_kind,
        options=f"flags {flags:#x}" if flags else None,
        identifier=escape(triple) or None,
        readable=whole,
    )
    return OffloadBinary(image, None, vendor, end)


def _strings(source: Source, offset: int, size: int, at: int, count: int) -> dict[str, str]:
    found = {}
    for index in range(min(count, _MAX_STRINGS)):
        row = source.peek(offset + at + index * STRING.size, STRING.size)
        if len(row) < STRING.size or at + (index + 1) * STRING.size > size:
            break
        key, value = STRING.unpack(row)
        found[_text(source, offset, size, key)] = _text(source, offset, size, value)
    return found


def _text(source: Source, offset: int, size: int, at: int) -> str:
    raw = source.peek(offset + at, min(_MAX_TEXT, size - at)) if at < size else b""
    return raw.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")


def _names(image_kind: int, triple: str, arch: str) -> tuple[str, str, str]:
    """Kind, target and vendor by the triple and arch."""
    if triple.startswith("amdgcn"):
        return ("bitcode" if image_kind == _BITCODE else "hsaco"), arch or triple, "amd"
    if triple.startswith("nvptx"):
        kind = {_BITCODE: "bitcode", _PTX: "ptx"}.get(image_kind, "sass")
        return kind, arch.replace("sm_", "compute_") if kind == "ptx" else arch or triple, "nvidia"
    if triple.startswith("spir"):
        target = triple.split("-")[0]
        return ("zebin" if "_gen" in target else "spirv"), arch or target, "intel"
    return "unknown", arch or triple or "unknown", "amd"
