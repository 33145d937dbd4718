"""An offload bundle with code objects added or replaced, packed as it was (reference: ClangOffloadBundler, LLVM 22).

Old code objects are carried over byte for byte; of a plain bundle none is read into memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.formats import numbers as n
from fatpatch.gpucode.bundle.read import CCOB_HEADERS, CODECS, ENTRY
from fatpatch.gpucode.codec import pack
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.frames import StreamBudget, stream_end
from fatpatch.model.kinds import BundleForm, Codec
from fatpatch.model.tree import ImageEntry, Payload

ALIGNMENT = 4096
_HEAD = len(n.BUNDLE_MAGIC) + 8
_HIP_ID = lazy_pattern(rb"((?:hip|hipv4)-amdgcn-amd-amdhsa-[a-z0-9_]*-)gfx", re.DOTALL)
_METHODS = {codec: method for method, codec in CODECS.items()}
_ZSTD_LEVEL = 9  # not larger than what clang writes (measured on six libraries), in 4 ms a megabyte
_FULL32 = 0xFFFFFFFF
_HINT = "'fatpatch inspect -v' says what is wrong with it"


class BundleEntry(NamedTuple):
    """One entry of a bundle: its id, the offset of its object, and the object's bytes."""

    identifier: bytes
    offset: int
    data: Source

    @property
    def name(self) -> str:
        """The id as an image shows it."""
        return self.identifier.decode("utf-8", "backslashreplace")


def entries_of(source: Source, payload: Payload, limit: int) -> list[BundleEntry]:
    """The entries of a bundle in order, the host's too; EditError when its table does not hold: a damaged bundle is not touched."""
    bundle = _plain(source, payload, limit)
    count = int.from_bytes(bundle.peek(len(n.BUNDLE_MAGIC), 8), "little")
    at = _HEAD
    entries = []
    for _ in range(min(count, len(payload.images) + 64)):
        row = bundle.peek(at, ENTRY.size)
        if len(row) < ENTRY.size:
            break
        offset, size, id_size = ENTRY.unpack(row)
        identifier = bundle.peek(at + ENTRY.size, min(id_size, ALIGNMENT))
        if len(identifier) < id_size or offset + size > bundle.size:
            break
        entries.append(BundleEntry(identifier, offset, bundle.slice(offset, size)))
        at += ENTRY.size + id_size
    if len(entries) != count or not all(image.readable for image in payload.images):
        raise EditError("is damaged, so it is not edited", locator=payload.locator, offset=payload.offset, hint=_HINT)
    _refuse_hidden(bundle, entries, at, payload)
    return entries


def _plain(source: Source, payload: Payload, limit: int) -> Source:
    """The bytes of the bundle without its compression."""
    whole = source.slice(payload.offset, payload.size)
    if payload.format != BundleForm.CCOB:
        return whole
    image = payload.images[0]
    end = image.data_offset + image.stored_bytes
    if stream_end(source, image.data_offset, end, image.compression, StreamBudget()) != end:
        message = "holds bytes behind its compressed stream, so it is not edited"
        raise EditError(message, locator=payload.locator, offset=payload.offset, hint=_HINT)
    return Source.of(ImageReader(source, limit).blob(image))


def _refuse_hidden(bundle: Source, entries: Sequence[BundleEntry], table_end: int, payload: Payload) -> None:
    """EditError when bytes that no entry names are more than padding: they would be lost."""
    at = table_end
    for offset, size in [*sorted((entry.offset, entry.data.size) for entry in entries), (bundle.size, 0)]:
        if any(any(chunk) for chunk in bundle.chunks(at, max(offset - at, 0))):
            message = "holds bytes between its objects that no entry names"
            raise EditError(message, locator=payload.locator, offset=payload.offset, hint="it is not edited, since they would be lost")
        at = max(at, offset + size)


def new_bundle(
    source: Source, payload: Payload, new_images: Sequence[ImageToAdd], replaced: Mapping[int, ImageEntry], *, limit: int
) -> NewPayload:
    """The bundle with every new_image in it. ``replaced`` maps the index of a new_image to the image whose place it takes.

    New objects come last: a runtime takes the first that fits, and generic or portable code only when there is none.
    """
    entries = entries_of(source, payload, limit)
    takes = {image.identifier: index for index, image in replaced.items()}
    prefix = _prefix(entries, payload)
    contents = [
        (entry.identifier, Source.of(new_images[takes[name]].content()) if name in takes else entry.data)
        for entry in entries
        for name in [entry.name]
    ]
    contents += [
        (prefix + new_image.target.encode(), Source.of(new_image.content()))
        for index, new_image in enumerate(new_images)
        if index not in replaced
    ]
    return NewPayload(payload, bundled(contents, payload, limit), tuple(new_images), ALIGNMENT)


def bundled(contents: Sequence[tuple[bytes, Source]], payload: Payload, limit: int, level: int = _ZSTD_LEVEL) -> tuple[Source, ...]:
    """The parts of a bundle of these ids and objects, packed as ``payload`` is, by zstd at ``level``."""
    parts = tuple(_laid_out(contents))
    return (Source.of(_packed(Source.joined(parts), payload, limit, level)),) if payload.format == BundleForm.CCOB else parts


def _prefix(entries: Sequence[BundleEntry], payload: Payload) -> bytes:
    """What stands before the target in the ids that HIP's runtime looks at: ``hipv4-amdgcn-amd-amdhsa--``."""
    for entry in entries:
        if found := _HIP_ID.match(entry.identifier):
            return found[1]
    raise EditError("has no HIP entry that could serve as a pattern for the new id", locator=payload.locator, offset=payload.offset)


def _laid_out(contents: Sequence[tuple[bytes, Source]]) -> Iterator[Source]:
    """Header, table, and the objects at multiples of 4096; an empty entry has the offset of the next object, as clang writes it."""
    end = _HEAD + sum(ENTRY.size + len(identifier) for identifier, _ in contents)
    head = n.BUNDLE_MAGIC + len(contents).to_bytes(8, "little")
    objects: list[Source] = []
    at = end
    for identifier, data in contents:
        start = at + -at % ALIGNMENT
        head += ENTRY.pack(start, data.size, len(identifier)) + identifier
        if data.size:
            objects += [Source.zeros(start - at), data]
            at = start + data.size
    yield Source.of(head)
    yield from objects


def _packed(bundle: Source, payload: Payload, limit: int, level: int) -> bytes:
    """The bundle compressed as the old one was: same method, same version of the header."""
    if bundle.size > limit:
        message = f"would unpack to {bundle.size:#x} bytes, more than the limit of {limit:#x}"
        raise EditError(message, locator=payload.locator, hint="raise it with --max-image-size")
    data = bundle.read(0, bundle.size)
    codec = payload.images[0].compression
    version = payload.version or max(CCOB_HEADERS)
    stored = pack(data, codec, level if codec == Codec.ZSTD else None, long_range=True)
    layout = CCOB_HEADERS[version]
    total = layout.size + len(stored)
    if version < max(CCOB_HEADERS) and max(total, len(data)) > _FULL32:
        raise EditError(f"would take more than {_FULL32} bytes, which its header (version {version}) cannot say", locator=payload.locator)
    sizes = (len(data),) if version == min(CCOB_HEADERS) else (total, len(data))
    return layout.pack(n.CCOB_MAGIC, version, _METHODS[codec], *sizes, _digest(data)) + stored


def _digest(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()[:8]
