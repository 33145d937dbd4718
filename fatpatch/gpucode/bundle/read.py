"""Clang offload bundles, plain and compressed (CCOB v1 to v3): which code objects they hold, for which targets.

Reference: ClangOffloadBundler documentation, LLVM 22. A compressed bundle is stepped over by its size (version 1, which has
none, by the end of its stream), and only its head is unpacked to read the table of entries.
"""

from __future__ import annotations

import struct

from fatpatch.base.locator import escape, join
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import unpack_prefix
from fatpatch.gpucode.frames import StreamBudget, stream_end
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import BundleForm, Codec, ImageKind, Vendor
from fatpatch.model.tree import ImageEntry

ENTRY = struct.Struct("<QQQ")
_MAX_ENTRIES = 4096
_MAX_ID = 4096
_MAX_HOSTS = 16
_HEAD = 1 << 18
_ID = lazy_pattern(rb"[a-z0-9_]+-[!-~]*\Z")
CODECS = {0: Codec.ZLIB, 1: Codec.ZSTD}
CCOB_HEADERS = {1: struct.Struct("<4sHHI8s"), 2: struct.Struct("<4sHHII8s"), 3: struct.Struct("<4sHHQQ8s")}


class Bundle(NamedTuple):
    """The code objects of one bundle, the offset behind it, and how it is packed (``plain``, ``ccob``, and its version)."""

    images: tuple[ImageEntry, ...]
    end: int
    format: BundleForm
    vendor: Vendor
    version: int | None = None


class _Blob(NamedTuple):
    """Where the bundle's bytes are: stored range, codec, unpacked size, first unpacked bytes; version and digest of a CCOB header."""

    offset: int
    stored: int
    codec: Codec
    size: int
    head: bytes
    version: int | None = None
    digest: bytes | None = None


def sane(source: Source, offset: int, limit: int, budget: StreamBudget) -> bool:
    """Whether a real bundle starts here: both magics also occur as mere strings in compilers."""
    data = source.peek(offset, 128)
    if data[:4] == n.CCOB_MAGIC:
        return _compressed(source, offset, limit, budget, head_size=len(n.BUNDLE_MAGIC)) is not None
    if data[:24] != n.BUNDLE_MAGIC or len(data) < 56:
        return False
    count, id_size = int.from_bytes(data[24:32], "little"), int.from_bytes(data[48:56], "little")
    return 0 < count <= _MAX_ENTRIES and 0 < id_size <= _MAX_ID and _ID.match(data[56 : 56 + id_size]) is not None


def read_bundle(source: Source, offset: int, limit: int, locator: str, diagnostics: Diagnostics, budget: StreamBudget) -> Bundle | None:
    """Read the bundle at ``offset``; None, with a diagnostic, when its header does not hold."""
    if source.peek(offset, 4) == n.CCOB_MAGIC:
        blob = _compressed(source, offset, limit, budget)
        if blob is None:
            message = "expected CCOB version 1 to 3, method 0 or 1, and sizes that fit"
            diagnostics.error(locator, offset, message, field="CCOB header")
            return None
        end = blob.offset + blob.stored
    else:
        head = source.peek(offset, min(_HEAD, limit - offset))
        blob = _Blob(offset, limit - offset, Codec.NONE, limit - offset, head)
        end = offset
    images, reach, vendor = _entries(source, blob, offset, locator, diagnostics)
    if blob.codec == Codec.NONE:
        end = min(offset + reach, limit)
    return Bundle(images, end, BundleForm.PLAIN if blob.codec == Codec.NONE else BundleForm.CCOB, vendor, blob.version)


def _compressed(source: Source, offset: int, limit: int, budget: StreamBudget, head_size: int = _HEAD) -> _Blob | None:
    data = source.peek(offset, 32)
    version = int.from_bytes(data[4:6], "little")
    layout = CCOB_HEADERS.get(version)
    if layout is None or len(data) < layout.size:
        return None
    _, _, method, *sizes, digest = layout.unpack_from(data)
    codec = CODECS.get(method)
    start, size = offset + layout.size, sizes[-1]
    if codec is None or start >= limit:
        return None
    head = unpack_prefix(source.peek(start, min(limit - start, _HEAD)), codec, min(size, head_size))
    if head[:24] != n.BUNDLE_MAGIC:
        return None
    end = offset + sizes[0] if len(sizes) > 1 else stream_end(source, start, limit, codec, budget)
    if end is None or not start < end <= limit:
        return None
    return _Blob(start, end - start, codec, size, head, version, digest)


def _entries(
    source: Source, blob: _Blob, offset: int, locator: str, diagnostics: Diagnostics
) -> tuple[tuple[ImageEntry, ...], int, Vendor]:
    """The images of the entry table, how far they reach from the magic, and whose hardware they are for."""
    head = blob.head
    count = int.from_bytes(head[24:32], "little")
    at, reach, total = 32, 32, 0
    images: list[ImageEntry] = []
    seen: dict[str, int] = {}
    vendor, vendors, hosts = Vendor.AMD, set[Vendor](), 0
    if count > _MAX_ENTRIES:
        diagnostics.error(locator, offset + 24, f"{count} entries announced, limit {_MAX_ENTRIES}", field="entry count")
        count = 0
    for index in range(count):
        where = offset + at if blob.codec == Codec.NONE else offset
        if at + ENTRY.size > len(head):
            diagnostics.error(locator, where, f"{count} entries announced, the table ends at entry {index}", field="entry count")
            break
        start, size, id_size = ENTRY.unpack_from(head, at)
        identity = head[at + ENTRY.size : at + ENTRY.size + id_size]
        if id_size > _MAX_ID or len(identity) < id_size:
            diagnostics.error(locator, where, f"an entry id of {id_size:#x} bytes does not fit", field="entry id")
            break
        at += ENTRY.size + id_size
        reach = max(reach, at)
        name = identity.decode("utf-8", "backslashreplace")
        kind, target, whose = classify(name, vendor)
        if kind != ImageKind.HOST:
            kind = kind_of(source.peek(offset + start, 4) if blob.codec == Codec.NONE else head[start : start + 4], kind)
        total += min(size, blob.size)
        if total > 2 * blob.size:
            diagnostics.error(locator, where, "the entries overlap: the rest is left out", field="entry size")
            break
        if kind == ImageKind.HOST and size == 0:
            hosts += 1
            if hosts > _MAX_HOSTS:
                diagnostics.error(locator, where, f"more than {_MAX_HOSTS} empty host entries: the rest is left out", field="entry count")
                break
            continue
        vendors.add(whose)
        seen[target] = seen.get(target, 0) + 1
        label = target if seen[target] == 1 else f"{target}#{seen[target]}"
        whole = start + size <= blob.size
        if not whole:
            message = f"{target} ends at {start + size:#x}, the bundle at {blob.size:#x}"
            diagnostics.error(join(locator, label), where, message, field="entry size")
        else:
            reach = max(reach, start + size)
        plain = blob.codec == Codec.NONE
        images.append(
            ImageEntry(
                locator=join(locator, label),
                kind=kind,
                target=target,
                code_version=None,
                compression=blob.codec,
                stored_size=size if plain else None,
                size=size,
                offset=offset + start if plain else offset,
                data_offset=blob.offset + start if plain else blob.offset,
                stored_bytes=size if plain else blob.stored,
                blob_size=None if plain else blob.size,
                within=None if plain else (start, start + size),
                identifier=name,
                readable=whole,
                blob_digest=blob.digest,
            )
        )
    return tuple(images), reach, next((each for each in (Vendor.AMD, Vendor.NVIDIA, Vendor.INTEL) if each in vendors), vendor)


def classify(name: str, vendor: Vendor) -> tuple[ImageKind, str, Vendor]:
    """Kind, target and vendor of an entry id such as ``hipv4-amdgcn-amd-amdhsa--gfx90a:xnack+``; ``vendor`` where it does not tell."""
    offload, _, triple = name.partition("-")
    if offload == ImageKind.HOST:
        return ImageKind.HOST, escape(triple.rstrip("-")) or "host", vendor
    if triple.startswith(("amdgcn", "amdgpu")):
        at = triple.find("gfx")
        target = triple[at:] if at > 0 else triple.rsplit("-", 1)[-1]
        return (ImageKind.SPIRV if target == "amdgcnspirv" else ImageKind.HSACO), escape(target or triple), Vendor.AMD
    if triple.startswith("spirv64-amd"):
        return ImageKind.SPIRV, "amdgcnspirv", Vendor.AMD
    if triple.startswith("nvptx"):
        return ImageKind.SASS, escape(triple.rsplit("-", 1)[-1] or triple), Vendor.NVIDIA
    sycl = triple or offload
    if sycl.startswith("spir"):
        target = "spir64_gen" if sycl.startswith("spir64_gen") else sycl.split("-")[0]
        return (ImageKind.SPIRV if target in ("spir64", "spirv64") else ImageKind.ZEBIN), escape(target), Vendor.INTEL
    return ImageKind.UNKNOWN, escape(name), vendor


def kind_of(head: bytes, kind: ImageKind) -> ImageKind:
    """The kind of an image by its first bytes, where those tell that it is not of the ``kind`` that its name promises."""
    if head[:4] in (n.BITCODE_MAGIC, n.BITCODE_WRAPPER_MAGIC):
        return ImageKind.BITCODE
    if head[:4] == n.SPIRV_MAGIC:
        return ImageKind.SPIRV
    if kind == ImageKind.SASS and head[:1] in (b"/", b".", b"\n", b"\r"):
        return ImageKind.PTX
    return kind
