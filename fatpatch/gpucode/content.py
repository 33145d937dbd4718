"""The bytes of images: read, unpacked and cut out, with the last shared blob kept."""

from __future__ import annotations

from fatpatch.base.errors import FatpatchError, FormatError, UnsupportedError
from fatpatch.base.source import Source
from fatpatch.base.source_bytes import SourceBytes
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import unpack
from fatpatch.model.kinds import Codec, ImageKind
from fatpatch.model.tree import ImageEntry

_LARGE = 16 << 20


def read_in_part(image: ImageEntry) -> bool:
    """Whether an image is so large, and stored so, that its tables are read without the rest."""
    plain = image.compression == Codec.NONE and image.within is None
    return plain and image.kind == ImageKind.HSACO and image.stored_bytes > _LARGE


class ImageReader:
    """Reads images of one source; ``limit`` bounds what one image may unpack to. The last shared blob is kept, or why it is damaged."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._blob_at = -1
        self._blob = b""
        self._failure: FatpatchError | None = None

    def read(self, image: ImageEntry) -> bytes:
        """All bytes of an image. FormatError when they are damaged, LimitError when too many, UnsupportedError when opaque."""
        if image.flags is not None and image.flags & n.FLAG_OBFUSCATED:
            raise UnsupportedError("obfuscated by NVIDIA's tools: kept as it is, cannot be unpacked", locator=image.locator)
        blob = self.blob(image)
        if image.within is None:
            return blob
        start, end = image.within
        if end > len(blob):
            raise FormatError(f"ends at {end:#x}, its blob at {len(blob):#x}", locator=image.locator, field="image offset")
        return blob[start:end]

    def view(self, image: ImageEntry) -> bytes | SourceBytes:
        """As ``read``; of a large code object that is stored as it is, what is asked for and no more: some have hundreds of megabytes."""
        if not read_in_part(image):
            return self.read(image)
        return SourceBytes(self._source.slice(image.data_offset, image.stored_bytes), self._limit)

    def range(self, start: int, end: int) -> bytes:
        """Stored bytes as they are; LimitError when they are more than an image may be."""
        if end - start > self._limit:
            unpack(b"", "stored", end - start, limit=self._limit)
        return self._source.read(start, end - start)

    def blob(self, image: ImageEntry) -> bytes:
        """The unpacked bytes that an image shares with others, or its own; errors as for ``read``."""
        if image.within is None:
            return self._unpacked(image)
        if self._blob_at != image.data_offset:
            self._blob_at, self._blob, self._failure = image.data_offset, b"", None
            try:
                self._blob = self._unpacked(image)
            except FatpatchError as error:
                self._failure = error
        if self._failure is not None:
            raise self._failure
        return self._blob

    def holds(self, image: ImageEntry) -> bool:
        """Whether the blob of an image that was just asked for could be unpacked."""
        return self._blob_at == image.data_offset and self._failure is None

    def _unpacked(self, image: ImageEntry) -> bytes:
        if image.compression == Codec.NONE:
            if image.stored_bytes > self._limit:
                unpack(b"", "stored", image.stored_bytes, limit=self._limit)
            return self._source.read(image.data_offset, image.stored_bytes)
        stored = self._source.read(image.data_offset, image.stored_bytes)
        blob = unpack(stored, image.compression, image.blob_size or 0, limit=self._limit)
        if image.blob_digest is not None:
            _check_digest(image, blob)
        return blob


def _check_digest(image: ImageEntry, blob: bytes) -> None:
    import hashlib

    digest = hashlib.md5(blob, usedforsecurity=False).digest()[:8]
    if digest != image.blob_digest:
        message = f"expected a blob with the MD5 {(image.blob_digest or b'').hex()}..., got {digest.hex()}..."
        raise FormatError(message, locator=image.locator, field="CCOB hash")
