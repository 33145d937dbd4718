"""The bytes of one fatbin entry (reference: CUDA fatbin, sections 2, 2.2, 2.6).

What a driver needs and real tools write: padding, the 64-bit and host bits, PTX with an options block and its NUL.
"""

from __future__ import annotations

import struct

from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import pack
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.signature import SUFFIX_FLAGS
from fatpatch.model.kinds import Codec, ImageKind
from fatpatch.model.target import Target

CODEC_FLAGS: dict[str, int] = {Codec.NONE: 0, Codec.LZ4: n.FLAG_LZ4, Codec.ZSTD: n.FLAG_ZSTD}
HOST_FLAGS = n.FLAG_HOST_LINUX | n.FLAG_HOST_MAC | n.FLAG_HOST_WINDOWS
CODECS = n.FLAG_ZLIB | n.FLAG_LZ4 | n.FLAG_LZ4_FRAME | n.FLAG_ZSTD
_FIRST_MERCURY_ARCH = 100
_COMPILE_ONLY = "--compile-only  "


def entry_bytes(new_image: ImageToAdd, *, codec: str, host: int, relocatable: bool) -> bytes:
    """The entry of a new_image. ``host`` are the host bits of the flags; ``codec`` none, lz4 or zstd.

    PTX that goes into a relocatable module is compiled without linking, as nvcc asks for it.
    """
    arch, suffix = Target(new_image.target).level
    assert new_image.signature.version is not None
    major, minor = new_image.signature.version
    is_ptx = new_image.kind == ImageKind.PTX
    flags = n.FLAG_64BIT | host | SUFFIX_FLAGS[suffix] | (n.FLAG_DEBUG if new_image.debug else 0)
    data = new_image.content() + (b"\0" if is_ptx else b"")
    block: bytes | None = None
    if is_ptx:
        options = new_image.options if new_image.options is not None else _COMPILE_ONLY if relocatable else ""
        block = options.encode("utf-8", "surrogateescape")
    elif arch >= _FIRST_MERCURY_ARCH and new_image.signature.compat:
        flags |= n.FLAG_MERCURY
        block = b"\0" + new_image.signature.compat[:-1]
    identifier = b"" if new_image.identifier is None else new_image.identifier.encode("utf-8", "surrogateescape")
    extension = _string(identifier) if identifier else b""
    options_offset = n.ENTRY_HEADER_SIZE + len(extension) if block is not None else 0
    if block is not None:
        extension += struct.pack("<II", options_offset + 8, len(block)) + _string(block)
    header = Header(
        kind=n.KIND_PTX if is_ptx else n.KIND_ELF,
        version=n.ENTRY_VERSION,
        header_size=0,
        payload_size=0,
        compressed_size=0,
        options_offset=options_offset,
        minor=minor,
        major=major,
        arch=arch,
        identifier_offset=n.ENTRY_HEADER_SIZE if identifier else 0,
        identifier_length=len(identifier),
        flags=flags,
        key=0,
        uncompressed_size=0,
    )
    return packed_entry(header, extension, data, codec)


def packed_entry(header: Header, extension: bytes, data: bytes, codec: str, level: int | None = None) -> bytes:
    """An entry of these bytes: the sizes and codec flags of ``header`` are made anew. What does not get smaller is not compressed."""
    stored = pack(data, codec, level)
    if len(stored) >= len(data):
        stored, codec = data, "none"
    return entry_header(header, extension, len(stored), len(data), codec) + extension + stored + bytes(-len(stored) % 8)


def entry_header(header: Header, extension: bytes, stored: int, unpacked: int, codec: str) -> bytes:
    """``header`` with the sizes and codec flags of a payload of ``stored`` bytes."""
    packed = codec != Codec.NONE
    header = header._replace(
        header_size=n.ENTRY_HEADER_SIZE + len(extension),
        payload_size=stored + -stored % 8,
        compressed_size=stored if packed else 0,
        uncompressed_size=unpacked if packed else 0,
        flags=header.flags & ~CODECS | CODEC_FLAGS[codec],
    )
    return HEADER.pack(*header)


def _string(text: bytes) -> bytes:
    """A string of the extension: its NUL and zeros to a multiple of 8."""
    return text + bytes(8 - len(text) % 8)
