"""A fatbin as the driver walks it: by the sizes in its headers alone, whatever they lead to (reference: load rules, sections 0 and A).

The reader of ``fatbin.py`` recovers from damage to show what is whole. The driver does not: zero bytes where it expects an entry make
it loop for ever, and other bytes are taken for a header.
"""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.entry import HEADER, Header, label_of
from fatpatch.gpucode.fatbin.read import CONTAINER
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import ImageEntry

INVALID_IMAGE = 200
NO_IMAGE = 209
_MAX_ENTRIES = 100_000


class View(NamedTuple):
    """The entries that the driver sees, in its order; or ``error`` (a CUresult), "crash" or "hang" before it chooses any."""

    images: tuple[ImageEntry, ...]
    error: int | str | None = None
    reason: str = ""


def driver_view(source: Source, offset: int, locator: str) -> View:
    """Walk the fatbin at ``offset`` of a source as driver 580 does (measured).

    Offsets are 64-bit numbers that wrap, the size counts with its low 32 bits, headers are read even where they are cut.
    """
    head = source.peek(offset, CONTAINER.size)
    if len(head) < CONTAINER.size:
        return View((), NO_IMAGE, "the container header is cut")
    magic, version, header_size, size = CONTAINER.unpack(head)
    if magic != n.FATBIN_MAGIC:
        return View((), INVALID_IMAGE, f"expected the magic {n.FATBIN_MAGIC:#x}, got {magic:#x}")
    if version != n.FATBIN_VERSION:
        return View((), INVALID_IMAGE, f"expected container version 1, got {version}")
    size = _signed(size & 0xFFFFFFFF, 32)
    images: list[ImageEntry] = []
    seen: set[int] = set()
    at = 0
    while at < size:
        place = offset + header_size + at
        data = source.peek(place, HEADER.size) if place >= 0 and at >= 0 else b""
        if not data:
            return View(tuple(images), "crash", f"the sizes lead {at:#x} bytes behind the container's header, where nothing is mapped")
        header = Header._make(HEADER.unpack(data.ljust(HEADER.size, b"\0")))
        step = header.header_size + header.payload_size
        if step % (1 << 64) == 0 or at in seen:
            return View(
                tuple(images), "hang", f"the entry at {place:#x} has size 0 or leads back to itself: the driver walks in circles for ever"
            )
        seen.add(at)
        images.append(_image(header, place, f"{locator}!entry[{len(images)}]"))
        if len(images) > _MAX_ENTRIES:
            return View(tuple(images), "hang", f"more than {_MAX_ENTRIES} entries")
        at = _signed((at + step) % (1 << 64), 64)
    return View(tuple(images))


def _image(header: Header, place: int, locator: str) -> ImageEntry:
    kind, version, header_size, payload_size, compressed, _, minor, major, arch, _, _, flags, _, unpacked = header
    label = label_of(kind, version, minor, major, arch, flags)
    plain = label.codec == Codec.NONE
    size = payload_size if plain else unpacked
    return ImageEntry(  # in the order of its fields, as in ``read_entry``
        locator, label.kind, label.target, label.code_version, label.codec, payload_size, size, place, place + header_size,
        payload_size if plain else compressed, None if plain else unpacked, None, None, flags, kind,
    )  # fmt: skip


def _signed(value: int, bits: int) -> int:
    return value - ((value & 1 << (bits - 1)) << 1)
