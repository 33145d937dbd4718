"""The quicker inflater gives what zlib gives, on sound and on hostile streams; zlib has the last word on those."""

from __future__ import annotations

import random
import zlib

import pytest

from fatpatch.base.errors import FormatError
from fatpatch.base.source import Source
from fatpatch.binfmt import codecs, quick_inflate
from fatpatch.binfmt.codecs import pieces
from fatpatch.model.kinds import Codec

isal_zlib = pytest.importorskip("isal.isal_zlib")
Answer = tuple[bytes, str, list[str]]


def answer(codec: str, data: bytes, crc32: int | None = None) -> Answer:
    """What a stream unpacks to, or how that ends, and what is odd behind its end."""
    notes: list[str] = []
    found: list[bytes] = []
    try:
        for piece in pieces(codec, Source.of(data), notes=notes, crc32=crc32):
            assert 0 < len(piece) <= 1 << 20
            found.append(piece)
    except FormatError as error:
        return b"", error.message, []
    return b"".join(found), "", notes


def both(monkeypatch: pytest.MonkeyPatch, codec: str, data: bytes, crc32: int | None = None) -> tuple[Answer, Answer]:
    """By zlib alone, and with the quicker one."""
    with monkeypatch.context() as patched:
        patched.setattr(codecs, "quick_inflater", lambda stored: None)
        plain = answer(codec, data, crc32)
        patched.setattr(codecs, "quick_inflater", lambda stored: isal_zlib.decompressobj)
        return plain, answer(codec, data, crc32)


def stream(codec: str, data: bytes, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, 31 if codec == Codec.GZIP else -15, 9, strategy)
    return packer.compress(data) + packer.flush()


def content(generator: random.Random) -> bytes:
    size = generator.randrange(3000)
    return generator.choice([b"", generator.randbytes(size), b"x" * (size * 30), generator.randbytes(40) * (size // 40), bytes(size)])


@pytest.mark.parametrize("codec", [Codec.DEFLATE, Codec.GZIP])
@pytest.mark.parametrize("size", [0, 1, 70_000, (1 << 20) - 1, 1 << 20, (3 << 20) + 7])
def test_sound_streams(monkeypatch: pytest.MonkeyPatch, codec: str, size: int) -> None:
    data = bytes(size // 2) + random.Random(size).randbytes(size - size // 2)
    for level in (0, 1, 9):
        plain, quick = both(monkeypatch, codec, stream(codec, data, level), zlib.crc32(data))
        assert quick == plain == (data, "", [])


@pytest.mark.parametrize("codec", [Codec.DEFLATE, Codec.GZIP])
def test_damaged_streams_end_as_with_zlib(monkeypatch: pytest.MonkeyPatch, codec: str) -> None:
    generator, refused, taken = random.Random(7), 0, 0
    for _ in range(3000):
        data = content(generator)
        strategy = generator.choice([zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED, zlib.Z_HUFFMAN_ONLY])
        packed = bytearray(stream(codec, data, generator.choice([0, 1, 9]), strategy))
        for _ in range(generator.randrange(4)):
            at = generator.randrange(min(len(packed), 200)) if generator.random() < 0.7 else generator.randrange(len(packed))
            packed[at : at + generator.randrange(3)] = generator.randbytes(generator.randrange(1, 3))
        if generator.random() < 0.2:
            packed += generator.choice([bytes(5), b"more", stream(codec, b"another")])
        if generator.random() < 0.2:
            del packed[generator.randrange(len(packed)) :]
        plain, quick = both(monkeypatch, codec, bytes(packed), zlib.crc32(data))
        refused += bool(plain[1])
        if quick != plain:  # ISA-L takes incomplete codes and unknown flags of gzip, and only where what it gives has the right sum
            assert quick in ((data, "", []), (data + b"another", "", []))
            assert plain[1]
            taken += 1
    assert 500 < refused < 2500
    assert taken < 20


def test_what_isal_takes_and_zlib_refuses_is_refused_by_its_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = bytes.fromhex("4d c0 01 01 00 00 00 00 80 20 ff 57 6a")  # a code of one length for distances, and no end of block
    data = b"some bytes that are not in the stream"
    plain, quick = both(monkeypatch, Codec.DEFLATE, packed, zlib.crc32(data))
    assert plain[1]
    assert quick == plain


def test_a_wrong_sum_of_a_sound_stream_is_not_for_the_inflater_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, quick = both(monkeypatch, Codec.DEFLATE, stream(Codec.DEFLATE, b"some"), 1)
    assert quick == plain == (b"some", "", [])


def test_zlib_goes_on_behind_what_was_given() -> None:
    def broken(notes: list[str]):  # type: ignore[no-untyped-def]
        yield from (b"ab", b"cde")
        raise isal_zlib.error("damaged")

    rest = quick_inflate.settled(broken, lambda notes: iter([b"a", b"bcd", b"efg", b"h"]), None, [])
    assert b"".join(rest) == b"abcdefgh"


def test_little_is_left_to_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick_inflate, "_PASSED", quick_inflate._Passed())
    assert quick_inflate.quick_inflater(1000) is None
    assert quick_inflate.quick_inflater(1 << 20) is isal_zlib.decompressobj
    assert quick_inflate.quick_inflater(1) is isal_zlib.decompressobj
    monkeypatch.setattr(quick_inflate, "_isal", lambda: None)
    assert quick_inflate.quick_inflater(1 << 20) is None
