"""Cubins, AMD code objects and PTX texts in the data of a host, without a container around them.

Plugins, Go and Rust programs and caches of compiled kernels hold them so. Each is known by its own header, with sizes that fit.
"""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.base.errors import FormatError
from fatpatch.base.locator import join
from fatpatch.binfmt.elf.elf64 import HEADER, SECTION, SEGMENT, header_of, section_rows
from fatpatch.formats import numbers as n
from fatpatch.gpucode.bare import BARE_IMAGES
from fatpatch.gpucode.finder import ELF_HEAD, MAX_FALSE_HITS, PTX_WORD, Finder, Range
from fatpatch.model.kinds import Codec, ContainerKind, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Payload

_PTX_HEAD = 4096
_MAX_PTX = 256 << 20
_MAX_SECTIONS = 0xFF00
_MAX_SEGMENTS = 512
_TEXT = bytes(value for value in range(256) if value in b"\t\n\r\f" or 32 <= value < 127 or value > 127)


def search(finder: Finder, part: Range) -> None:
    """Find them in one range; what was found before in it is stepped over."""
    for start, end in finder.gaps(part):
        _objects(finder, start, end, part)
    for start, end in finder.gaps(part):
        _texts(finder, start, end, part)


def _objects(finder: Finder, start: int, end: int, part: Range) -> None:
    at, false_hits = start, 0
    while (at := finder.magics.find(ELF_HEAD, at, end)) >= 0 and not finder.full and false_hits < MAX_FALSE_HITS:
        found = _object(finder, at, end, part)
        false_hits += found is None
        at = at + len(ELF_HEAD) if found is None else at + max(found, 1)
    finder.give_up(false_hits, part)


def _object(finder: Finder, at: int, end: int, part: Range) -> int | None:
    """Read the object whose magic is at ``at``; its size, or None when it is not one for a GPU or its tables do not fit."""
    head = finder.source.peek(at, HEADER.size)
    if len(head) < HEADER.size or int.from_bytes(head[18:20], "little") not in (n.EM_CUDA, n.EM_AMDGPU):
        return None
    from fatpatch.gpucode.code_object.target import identify as identify_amd
    from fatpatch.gpucode.cubin.tables import Tables

    size = _size_of(finder, at, end, head)
    if size is None or size > finder.image_limit:
        return None
    data = finder.source.peek(at, size)
    version: str | None
    if int.from_bytes(head[18:20], "little") == n.EM_CUDA:
        try:
            tables = Tables(data)
            target, producer = tables.target(), tables.toolkit()
        except FormatError:
            return None
        (kind, payload_kind, vendor), version = BARE_IMAGES[ContainerKind.CUBIN], "1.8" if tables.identity.new_layout else "1.7"
    else:
        identity = identify_amd(head)
        (kind, payload_kind, vendor), target, producer = BARE_IMAGES[ImageKind.HSACO], identity.target, None
        version = None if identity.version is None else str(identity.version)
    _keep(finder, at, size, part, payload_kind, vendor, ImageEntry(
        locator="", kind=kind, target=target, code_version=version, compression=Codec.NONE, stored_size=size, size=size, offset=at,
        data_offset=at, stored_bytes=size, producer=producer,
    ), "ELF header")  # fmt: skip
    return size


def _size_of(finder: Finder, at: int, end: int, head: bytes) -> int | None:
    """Bytes up to the end of the last table or section; None when one of them does not fit."""
    from fatpatch.gpucode.cubin.tables import WITHOUT_BYTES

    header = header_of(head)
    if header is None or header.ehsize != HEADER.size or not header.sections_fit(end - at):
        return None
    if header.phnum and header.phentsize != SEGMENT.size:
        return None
    if not 0 < header.shnum < _MAX_SECTIONS or header.phnum > _MAX_SEGMENTS:
        return None
    size = max(HEADER.size, header.sections_end, header.segments_end if header.phnum else 0)
    if at + size > end:
        return None
    for row in section_rows(finder.source.peek(at + header.shoff, header.shnum * SECTION.size)):
        if row.type and row.type not in WITHOUT_BYTES:
            size = max(size, row.offset + row.size)
    return size if at + size <= end else None


def _texts(finder: Finder, start: int, end: int, part: Range) -> None:
    at, false_hits = start, 0
    while (at := finder.magics.find(PTX_WORD, at, end)) >= 0 and not finder.full and false_hits < MAX_FALSE_HITS:
        found = _text(finder, at, start, end, part)
        false_hits += found is None
        at = at + len(PTX_WORD) if found is None else found
    finder.give_up(false_hits, part)


def _text(finder: Finder, at: int, low: int, end: int, part: Range) -> int | None:
    """Read the PTX text whose ``.version`` is at ``at``; the offset behind it, or None when it has no target or no kernel."""
    from fatpatch.gpucode.ptx.read import looks_like_ptx, places, ptx_target, ptx_version

    source = finder.source
    head = source.peek(at, min(_PTX_HEAD, end - at))
    if ptx_version(head) is None or (target := ptx_target(head.split(b"\0", 1)[0])) is None:
        return None
    before = source.peek(max(at - _PTX_HEAD, low), at - max(at - _PTX_HEAD, low))
    comments = before[len(before.rstrip(_TEXT)) :]
    lead = next((len(comments) - place for place in _starts(comments) if looks_like_ptx(comments[place:] + head[:64])), 0)
    stop = source.find(b"\0", at, min(end, at + _MAX_PTX))
    stop = min(end, at + _MAX_PTX) if stop < 0 else stop
    begin, size = at - lead, stop - (at - lead)
    if size > finder.image_limit or next(places(source.peek(begin, size), b".entry"), None) is None:
        return None
    _keep(finder, begin, size, part, ModuleKind.PTX, Vendor.NVIDIA, ImageEntry(
        locator="", kind=ImageKind.PTX, target=target, code_version=ptx_version(head), compression=Codec.NONE, stored_size=size, size=size,
        offset=begin, data_offset=begin, stored_bytes=size,
    ), "PTX text")  # fmt: skip
    return stop


def _starts(comments: bytes) -> Iterator[int]:
    """The places at which a text may begin whose ``.version`` comments precede: the first comment first."""
    at = comments.find(b"/")
    while at >= 0:
        yield at
        at = comments.find(b"/", at + 1)


def _keep(finder: Finder, at: int, size: int, part: Range, kind: ModuleKind, vendor: Vendor, image: ImageEntry, evidence: str) -> None:
    locator = finder.name_for(part.section, kind)
    finder.keep(Payload(
        locator=locator, vendor=vendor, kind=kind, section=part.section, offset=at, size=size, found_by=(evidence,),
        images=(image._replace(locator=join(locator, image.target)),),
    ))  # fmt: skip
