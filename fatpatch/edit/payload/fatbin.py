"""A fatbin with images added or replaced. Old entries are carried over byte for byte, without being read into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fatpatch.base.errors import EditError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.payload.entry import CODEC_FLAGS, HOST_FLAGS, entry_bytes
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.fatbin.read import CONTAINER
from fatpatch.gpucode.signature import signature_of
from fatpatch.model.kinds import ImageKind, ModuleKind
from fatpatch.model.tree import ImageEntry, Payload


class EntryCopy(NamedTuple):
    """One whole entry of a fatbin: its range in the file, and its header."""

    offset: int
    size: int
    header: Header


def entries_of(source: Source, payload: Payload) -> list[EntryCopy]:
    """The entries of a fatbin; EditError unless they tile it exactly: a damaged fatbin is not touched."""
    at, end = payload.offset + CONTAINER.size, payload.offset + payload.size
    magic, version, header_size, size = CONTAINER.unpack(source.read(payload.offset, CONTAINER.size))
    sound = magic == n.FATBIN_MAGIC and version == n.FATBIN_VERSION and header_size == CONTAINER.size and size == end - at
    entries = []
    while sound and at < end:
        data = source.peek(at, HEADER.size)
        if len(data) < HEADER.size:
            break
        header = Header._make(HEADER.unpack(data))
        length = header.header_size + header.payload_size
        if header.header_size < HEADER.size or at + length > end:
            break
        entries.append(EntryCopy(at, length, header))
        at += length
    if not sound or at != end:
        hint = "'fatpatch inspect -v' says what is wrong with it"
        raise EditError("is damaged, so it is not edited", locator=payload.locator, offset=at, hint=hint)
    return entries


def host_bits(entries: Sequence[EntryCopy], default: int) -> int:
    """The host system bits as the fatbin's own entries have them."""
    return next((entry.header.flags & HOST_FLAGS for entry in entries if entry.header.flags & HOST_FLAGS), default)


def codec_like(payload: Payload, kind: str) -> str:
    """The codec that the fatbin's images of a kind use: a driver that reads those reads ours; LZ4, which all read, when in doubt."""
    found = next((image.compression for image in payload.images if image.kind == kind), "none" if kind == ImageKind.SASS else "lz4")
    return found if found in CODEC_FLAGS else "lz4"


def new_fatbin(
    source: Source,
    payload: Payload,
    new_images: Sequence[ImageToAdd],
    replaced: Mapping[int, ImageEntry],
    *,
    codec: str | None,
    host: int,
    relocatable: bool,
) -> NewPayload:
    """The fatbin with every new_image in it. ``replaced`` maps the index of a new_image to the image whose place it takes.

    New machine code goes first and new PTX last: the ends where a driver prefers them should it ever meet an equal.
    """
    if payload.kind != ModuleKind.FATBIN:
        return _from_bare(source, payload, new_images, codec=codec, host=host)
    entries = entries_of(source, payload)
    host = host_bits(entries, host)
    made = [
        entry_bytes(new_image, codec=codec or codec_like(payload, new_image.kind), host=host, relocatable=relocatable)
        for new_image in new_images
    ]
    takes = {image.offset: made[index] for index, image in replaced.items()}
    first = [data for index, data in enumerate(made) if index not in replaced and new_images[index].kind == ImageKind.SASS]
    last = [data for index, data in enumerate(made) if index not in replaced and new_images[index].kind != ImageKind.SASS]
    parts = [Source.of(data) for data in first]
    parts += [Source.of(takes[entry.offset]) if entry.offset in takes else source.slice(entry.offset, entry.size) for entry in entries]
    parts += [Source.of(data) for data in last]
    return contained(payload, parts, new_images)


def contained(payload: Payload, parts: Sequence[Source], new_images: Sequence[ImageToAdd] = ()) -> NewPayload:
    """A fatbin of these entries."""
    header = CONTAINER.pack(n.FATBIN_MAGIC, n.FATBIN_VERSION, CONTAINER.size, sum(part.size for part in parts))
    return NewPayload(payload, (Source.of(header), *parts), tuple(new_images))


def _from_bare(source: Source, payload: Payload, new_images: Sequence[ImageToAdd], *, codec: str | None, host: int) -> NewPayload:
    """A fatbin made of a lone cubin or PTX and what is added to it."""
    (image,) = payload.images
    data = source.read(0, source.size)
    signature = signature_of(image.kind, data)
    if signature.version is None or signature.target is None:
        raise EditError("names no .version or no .target sm_NN, so it cannot become an entry", locator=payload.locator)
    own = ImageToAdd(
        image.locator, image.kind, image.target, lambda: data.rstrip(b"\0") if image.kind == ImageKind.PTX else data, signature
    )
    everything = sorted((own, *new_images), key=lambda new_image: new_image.kind != ImageKind.SASS)
    entries = [entry_bytes(each, codec=codec or "none", host=host, relocatable=bool(each.signature.relocatable)) for each in everything]
    return contained(payload, [Source.of(entry) for entry in entries], new_images)
