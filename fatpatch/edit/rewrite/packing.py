"""One image or bundle compressed anew, as a task that any thread can do; what it needs is read when its turn comes."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Protocol

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.scratch import Scratch
from fatpatch.base.source import Source
from fatpatch.edit.payload.entry import packed_entry
from fatpatch.edit.payload.fatbin import EntryCopy
from fatpatch.formats import numbers as n
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.fatbin.entry import HEADER
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import ImageEntry

DEMANDING = "zstd"  # the one codec that older drivers do not read

Packed = Source | FatpatchError | None
"""The new bytes; None where the old ones stay; or why there are none."""


class Packing(NamedTuple):
    """How to compress, what an image may unpack to, where the new bytes are kept, and who may read what only one thread can."""

    codec: str
    level: int | None
    limit: int
    scratch: Scratch
    reading: threading.Lock


class PackTask(Protocol):
    """A part of a file to compress, and how many unpacked bytes it has."""

    @property
    def source(self) -> Source:
        """What holds it."""

    @property
    def weight(self) -> int:
        """Unpacked bytes."""

    @property
    def locator(self) -> str:
        """Where it is."""

    def pack(self, how: Packing) -> Source | None:
        """The new bytes; None when they gain nothing. FatpatchError when the old ones cannot be read."""


class EntryTask(NamedTuple):
    """An entry of a fatbin with the image in it."""

    source: Source
    entry: EntryCopy
    image: ImageEntry

    @property
    def weight(self) -> int:
        return self.image.size or 0

    @property
    def locator(self) -> str:
        return self.image.locator

    @property
    def extension(self) -> bytes:
        """What follows the header: identifier and options."""
        return self.source.read(self.entry.offset + HEADER.size, self.entry.header.header_size - HEADER.size)

    def freed(self, codec: str) -> bool:
        """Whether the new form is wanted even where it takes more room: every driver reads it."""
        return codec == Codec.NONE or (bool(self.entry.header.flags & n.FLAG_ZSTD) and codec != DEMANDING)

    def pack(self, how: Packing) -> Source | None:
        data = ImageReader(self.source, how.limit).read(self.image)
        new = packed_entry(self.entry.header, self.extension, data, how.codec, how.level)
        return how.scratch.keep(new) if self.freed(how.codec) or len(new) < self.entry.size else None


def packed(task: PackTask, how: Packing) -> Packed:
    """What became of a task; an error is part of the answer, since other modules go on."""
    try:
        with how.reading if task.source.path is None else nullcontext():  # what is unpacked as it is read goes forwards only
            return task.pack(how)
    except FatpatchError as error:
        return error
