"""What clang, ROCm and SYCL put beside host code: bundles, offload binaries, one section an entry, references to kernel packs."""

from __future__ import annotations

import bisect

from fatpatch.base.locator import escape, join
from fatpatch.formats import numbers as n
from fatpatch.gpucode import kpack
from fatpatch.gpucode.bundle import offload_binary
from fatpatch.gpucode.bundle import read as offload_bundle
from fatpatch.gpucode.codec import unpack_prefix, zstd_content_size
from fatpatch.gpucode.finder import MAX_FALSE_HITS, Finder, Range
from fatpatch.gpucode.frames import stream_end
from fatpatch.gpucode.spirv import read_module, sane_header
from fatpatch.model.kinds import Codec, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Payload

_MAGICS = (n.BUNDLE_MAGIC, n.CCOB_MAGIC, offload_binary.MAGIC)
_HEAD = 64
_FIRST_BLOCK = 1 << 18
_MAX_PIECES = 4096
_MAX_MODULE = 16 << 20
_MAX_REFERENCES = 200


def bundle_chain(finder: Finder, part: Range, evidence: str) -> None:
    """Bundles back to back with zeros between, each stepped over by its own size; anything else is damage, and the search goes on."""
    at, false_hits = part.start, 0
    while not finder.full and (at := finder.skip_zeros(at, part.end, 1)) < part.end:
        if offload_bundle.sane(finder.source, at, part.end, finder.budget):
            at = _bundle(finder, at, part, evidence)
            continue
        false_hits += 1
        following = _next_magic(finder, at + 1, part.end, dict.fromkeys(_MAGICS, -1))[1] if false_hits < MAX_FALSE_HITS else part.end
        got = finder.source.peek(at, 8).hex()
        message = f"expected a bundle or zero bytes, got {got}: {following - at:#x} bytes skipped"
        finder.diagnostics.error(finder.locator, at, message, field="bundle header")
        at = following
    finder.give_up(false_hits, part)


def search(finder: Finder, part: Range) -> None:
    """Bundles and OffloadBinaries that only their magic shows. What nothing sound follows is silent: compilers hold such strings."""
    at, false_hits = part.start, 0
    ahead = dict.fromkeys(_MAGICS, -1)
    while at < part.end and false_hits < MAX_FALSE_HITS and not finder.full:
        magic, at = _next_magic(finder, at, part.end, ahead)
        if at >= part.end:
            break
        if (around := _covered(finder, at)) is not None:
            at = around.offset + around.size
        elif magic == offload_binary.MAGIC and offload_binary.sane(finder.source, at, part.end):
            at = _binary(finder, at, part, "magic")
        elif magic != offload_binary.MAGIC and offload_bundle.sane(finder.source, at, part.end, finder.budget):
            at = _bundle(finder, at, part, "magic")
        else:
            at += len(magic)
            false_hits += 1
    finder.give_up(false_hits, part)


def _covered(finder: Finder, at: int) -> Payload | None:
    """The payload that was found around an offset."""
    before = bisect.bisect_right(finder.order, at) - 1
    around = finder.found[finder.order[before]] if before >= 0 else None
    return around if around is not None and at < around.offset + around.size else None


def _next_magic(finder: Finder, at: int, end: int, ahead: dict[bytes, int]) -> tuple[bytes, int]:
    """The nearest magic from ``at`` on, and where; ``end`` when there is none. ``ahead`` keeps what was found, so nothing is read twice."""
    for magic in _MAGICS:
        if ahead[magic] < at:
            found = finder.magics.find(magic, at, end)
            ahead[magic] = end if found < 0 else found
    return min(ahead.items(), key=lambda item: item[1])


def _bundle(finder: Finder, at: int, part: Range, evidence: str) -> int:
    locator = finder.name_for(part.section, "bundle")
    read = offload_bundle.read_bundle(finder.source, at, part.end, locator, finder.diagnostics, finder.budget)
    if read is None:
        return at + len(n.CCOB_MAGIC)
    found_by, wrapper = finder.evidence_for(at, evidence)
    finder.keep(Payload(
        locator=locator, vendor=read.vendor, kind=ModuleKind.OFFLOAD_BUNDLE, section=part.section, offset=at, size=read.end - at,
        found_by=found_by, images=read.images, wrapper=wrapper, format=read.format, version=read.version,
    ))  # fmt: skip
    return max(read.end, at + len(n.CCOB_MAGIC))


def binary_chain(finder: Finder, part: Range, evidence: str) -> None:
    """OffloadBinaries back to back, each at a multiple of 8."""
    at = part.start
    while at + offload_binary.HEADER.size <= part.end and not finder.full:
        at = finder.skip_zeros(at, part.end)
        if at >= part.end:
            break
        following = _binary(finder, at, part, evidence)
        if following <= at:
            break
        at = following + -(following - part.start) % 8


def _binary(finder: Finder, at: int, part: Range, evidence: str) -> int:
    """Read the OffloadBinary at ``at``; the offset behind it. Fatbins in it are payloads of their own."""
    locator = finder.name_for(part.section, "offload")
    read = offload_binary.read_binary(finder.source, at, part.end, locator, finder.diagnostics)
    if read is None:
        return part.end
    for fatbin in read.fatbins:
        finder.add_fatbin(fatbin, part, evidence)
    if read.images or not read.fatbins:
        finder.keep(Payload(
            locator=locator, vendor=read.vendor, kind=ModuleKind.OFFLOAD_BINARY, section=part.section, offset=at, size=read.end - at,
            found_by=(evidence,), images=read.images,
        ))  # fmt: skip
    return read.end


def entry_section(finder: Finder, part: Range, identity: str) -> None:
    """A section that is one entry, as in -fgpu-rdc objects and SYCL programs: its name is the entry's id, cut away in PE images."""
    assert part.section is not None
    kind, target, vendor = offload_bundle.classify(identity, Vendor.AMD) if identity else (ImageKind.UNKNOWN, "", Vendor.INTEL)
    if kind == ImageKind.HOST:
        return
    locator = finder.locator if part.section is None else join(finder.locator, part.section)
    images: list[ImageEntry] = []
    counts: dict[str, int] = {}
    at = part.start
    while not finder.full and (at := finder.skip_zeros(at, part.end, 1)) < part.end:
        if len(images) >= _MAX_PIECES:
            finder.diagnostics.error(locator, at, f"more than {_MAX_PIECES} images in one section: the rest is left out")
            break
        piece = _piece(finder, at, part.end, locator, (kind, target, identity or None))
        number = counts[piece.target] = counts.get(piece.target, 0) + 1
        images.append(piece._replace(locator=f"{piece.locator}#{number}") if number > 1 else piece)
        at += piece.stored_bytes
    finder.keep(Payload(
        locator=locator, vendor=vendor, kind=ModuleKind.OFFLOAD_SECTION, section=part.section, offset=part.start,
        size=part.end - part.start, found_by=("section",), images=tuple(images),
    ))  # fmt: skip


def _piece(finder: Finder, at: int, end: int, locator: str, entry: tuple[ImageKind, str, str | None]) -> ImageEntry:
    """One image of an entry section: a zstd frame, a SPIR-V module, or all the rest of the section."""
    kind, target, identity = entry
    source = finder.source
    head = source.peek(at, _HEAD)
    stop = stream_end(source, at, end, Codec.ZSTD, finder.budget) if head[:4] == n.ZSTD_MAGIC else None
    if stop is None and sane_header(head):
        end = at + min(read_module(source.peek(at, min(end - at, _MAX_MODULE))).size, end - at)
    size: int | None = end - at
    if stop is not None:
        size = zstd_content_size(head)
        head = unpack_prefix(source.peek(at, min(stop - at, _FIRST_BLOCK)), Codec.ZSTD, _HEAD)
    kind = offload_bundle.kind_of(head, kind)
    if not target:
        kind, target = (ImageKind.SPIRV, "spir64") if kind == ImageKind.SPIRV else (ImageKind.ZEBIN, "spir64_gen")
    return ImageEntry(
        locator=join(locator, target),
        kind=kind,
        target=target,
        code_version=spirv_version(head),
        compression=Codec.NONE if stop is None else Codec.ZSTD,
        stored_size=(stop or end) - at,
        size=size,
        offset=at,
        data_offset=at,
        stored_bytes=(stop or end) - at,
        blob_size=None if stop is None else size,
        identifier=identity,
    )


def spirv_version(head: bytes) -> str | None:
    """``1.4`` from the first bytes of a SPIR-V module; None for other bytes."""
    return f"{head[6]}.{head[5]}" if head[:4] == n.SPIRV_MAGIC and len(head) >= 8 else None


def check_pointers(finder: Finder) -> None:
    """Each HIP wrapper must lead to a bundle: one that no section announces is read here; a HIPK wrapper leads to a reference."""
    source = finder.source
    references = 0
    for target, pointer in sorted(finder.pointers.items()):
        if finder.full or references > _MAX_REFERENCES:
            break
        if pointer.magic == n.HIP_KPACK_MAGIC:
            references += 1
            _reference(finder, target)
        elif pointer.magic == n.HIP_WRAPPER_MAGIC and target not in finder.found:
            if _covered(finder, target):
                message = f"leads into the middle of another payload ({target:#x})"
                finder.diagnostics.error(finder.locator, pointer.wrapper.offset + 8, message, field="bundle pointer")
                continue
            if offload_bundle.sane(source, target, source.size, finder.budget):
                _bundle(finder, target, Range(target, source.size, None), "wrapper")
                continue
            got = escape(source.peek(target, 4).hex()) or "nothing"
            message = f"expected an offload bundle at {target:#x}, got {got}"
            finder.diagnostics.error(finder.locator, pointer.wrapper.offset + 8, message, field="bundle pointer")


def _reference(finder: Finder, target: int) -> None:
    """The reference that stands where the bundle of a split library was."""
    locator = finder.name_for(None, "kpack_ref")
    found = kpack.read_reference(finder.source, target)
    if found is None:
        finder.diagnostics.error(locator, target, "expected a msgpack map with kpack_search_paths", field="kpack reference")
        return
    finder.diagnostics.add("note", locator, target, found.words())
    _, wrapper = finder.evidence_for(target, "wrapper")
    finder.keep(Payload(
        locator=locator, vendor=Vendor.AMD, kind=ModuleKind.KPACK_REFERENCE, section=None, offset=target, size=found.size,
        found_by=("wrapper",), images=(), wrapper=wrapper,
    ))  # fmt: skip
