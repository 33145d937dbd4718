"""The codecs of fatbin entries and offload bundles, with hard limits on what they may unpack to."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.formats.numbers import FLAG_LZ4, FLAG_LZ4_FRAME, FLAG_ZLIB, FLAG_ZSTD, LZ4_FRAME_MAGIC, ZSTD_MAGIC
from fatpatch.model.kinds import Codec

IMAGE_LIMIT = 512 << 20
"""Bytes that one image may unpack to in memory."""

_LZ4_LEVEL = 4
_ZSTD_LEVEL = 3
_LZ4_MAX_RATIO = 255
_ZSTD_WINDOW = 1 << 30  # what the driver takes (measured); memory is used as the data fills it
_ZLIB_MAX_RATIO = 1032
_OF_THREAD = threading.local()
_LIBRARIES = frozenset({"zstandard", "zstd", "lz4", "_frame", "_block"})
_ANY = FLAG_ZLIB | FLAG_LZ4 | FLAG_LZ4_FRAME | FLAG_ZSTD
_PRIORITY = ((FLAG_ZLIB, Codec.ZLIB), (FLAG_LZ4, Codec.LZ4), (FLAG_LZ4_FRAME, Codec.LZ4_FRAME), (FLAG_ZSTD, Codec.ZSTD))


def codec_of(flags: int) -> Codec:
    """The codec that the driver and cuobjdump pick when several bits are set (measured order)."""
    if flags & _ANY:
        for bit, name in _PRIORITY:
            if flags & bit:
                return name
    return Codec.NONE


def zstd_content_size(data: bytes) -> int | None:
    """The content size in a zstd frame header (RFC 8878, 3.1.1.1); None when absent or cut."""
    if len(data) < 5 or data[:4] != ZSTD_MAGIC:
        return None
    descriptor = data[4]
    single, width_code = descriptor & 0x20, descriptor >> 6
    width = (1 if single else 0, 2, 4, 8)[width_code]
    at = 5 + (0 if single else 1) + (0, 1, 2, 4)[descriptor & 3]
    if width == 0 or len(data) < at + width:
        return None
    value = int.from_bytes(data[at : at + width], "little")
    return value + 256 if width == 2 else value


def contradiction(codec: str, prefix: bytes, packed: int, unpacked: int) -> tuple[str, str] | None:
    """(field, message) when the first bytes or the sizes of a blob cannot be what its header says; None when they can.

    Looks at no more than the prefix: nothing is unpacked.
    """
    if codec == Codec.NONE:
        return None
    if codec != Codec.ZSTD and prefix[:4] == ZSTD_MAGIC:
        return "flags", f"the flags say {codec}, the payload starts with the zstd magic"
    if codec == Codec.ZSTD:
        if prefix[:4] != ZSTD_MAGIC:
            return "flags", f"the flags say zstd, expected the magic 28b52ffd, got {prefix[:4].hex()}"
        content = zstd_content_size(prefix)
        if content is not None and content != unpacked:
            return "uncompressed size", f"expected {content:#x} as the zstd frame says, got {unpacked:#x}"
    if codec == Codec.LZ4_FRAME and prefix[:4] != LZ4_FRAME_MAGIC:
        return "flags", f"the flags say LZ4 frame, expected the magic 04224d18, got {prefix[:4].hex()}"
    if codec == Codec.LZ4 and (unpacked > packed * _LZ4_MAX_RATIO or packed > unpacked + unpacked // 255 + 16):
        return "uncompressed size", f"{packed:#x} bytes of LZ4 cannot unpack to {unpacked:#x}"
    if codec == Codec.ZLIB and unpacked > packed * _ZLIB_MAX_RATIO:
        return "uncompressed size", f"{packed:#x} bytes of zlib cannot unpack to {unpacked:#x}"
    return None


def unpack(data: bytes, codec: str, size: int, *, limit: int = IMAGE_LIMIT) -> bytes:
    """Unpack one blob to exactly ``size`` bytes; FormatError when it is damaged, LimitError above ``limit``."""
    if codec == Codec.NONE:
        return data
    if size > limit:
        raise LimitError(
            f"unpacks to {size:#x} bytes, more than the limit of {limit:#x}",
            field="uncompressed size",
            hint="raise the limit with --max-image-size if you trust the file",
        )
    try:
        result = _UNPACKERS[codec](data, size)
    except Exception as error:
        raise _translate(error, codec) from error
    if len(result) != size:
        got = f"more than {size:#x}" if len(result) > size else f"{len(result):#x}"
        raise FormatError(f"{codec} data unpacks to {got} bytes, expected {size:#x}", field="uncompressed size")
    return result


def pack(data: bytes, codec: str, level: int | None = None, *, long_range: bool = False) -> bytes:
    """Compress one blob as NVIDIA's tools do: one raw LZ4 block, or one zstd frame with its content size; or one zlib stream.

    ``long_range`` finds repetitions far apart (zstd only), as LLVM's tools do for bundles.
    """
    if codec == Codec.LZ4:
        import lz4.block

        packed: bytes = lz4.block.compress(data, mode="high_compression", compression=level or _LZ4_LEVEL, store_size=False)
        return packed
    if codec == Codec.ZSTD:
        import zstandard

        wish = zstandard.ZstdCompressionParameters.from_level(
            level or _ZSTD_LEVEL, source_size=len(data), enable_ldm=long_range, write_content_size=True
        )
        return zstandard.ZstdCompressor(compression_params=wish).compress(data)
    return zlib.compress(data, level or -1) if codec == Codec.ZLIB else data


def _translate(error: Exception, codec: str) -> FormatError:
    """A codec library's own error as ours; what is not one is a bug and raised again."""
    module = type(error).__module__.split(".")[0]
    known = isinstance(error, ValueError | RuntimeError | MemoryError | OverflowError | EOFError | zlib.error)
    if not known and module not in _LIBRARIES:
        raise error
    return FormatError(f"{codec} data is damaged: {error}", field="payload")


def unpack_prefix(data: bytes, codec: str, size: int) -> bytes:
    """Up to ``size`` first bytes of a zlib or zstd stream of which only the start is at hand; b"" when it is damaged."""
    try:
        if codec == Codec.ZLIB:
            return zlib.decompressobj().decompress(data, max(size, 1))
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            return stream.read(size)
    except Exception as error:
        _translate(error, codec)
        return b""


def _lz4(data: bytes, size: int) -> bytes:
    import lz4.block

    if size > len(data) * _LZ4_MAX_RATIO:
        raise ValueError(f"{len(data):#x} bytes cannot unpack to {size:#x}")
    result: bytes = lz4.block.decompress(data, uncompressed_size=size)
    return result


def _lz4_frame(data: bytes, size: int) -> bytes:
    import lz4.frame

    result: bytes = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)
    return result


def _zlib(data: bytes, size: int) -> bytes:
    return zlib.decompressobj().decompress(data, size + 1)


def _zstd(data: bytes, size: int) -> bytes:
    import zstandard

    if zstd_content_size(data[:18]) == size:
        if (engine := getattr(_OF_THREAD, "zstd", None)) is None:  # to make one takes as long as unpacking a small image
            engine = _OF_THREAD.zstd = zstandard.ZstdDecompressor()
        return bytes(engine.decompress(data, max_output_size=size))
    with zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(data, read_across_frames=True) as stream:
        pieces, total = [], 0
        while total <= size and (piece := stream.read(min(1 << 20, size + 1 - total))):
            pieces.append(piece)
            total += len(piece)
    return b"".join(pieces)


_UNPACKERS: dict[str, Callable[[bytes, int], bytes]] = {Codec.LZ4: _lz4, Codec.LZ4_FRAME: _lz4_frame, Codec.ZLIB: _zlib, Codec.ZSTD: _zstd}
