"""A payload as it will be: what takes the place of a fatbin or a bundle."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.edit.payload.new_image import ImageToAdd
from fatpatch.model.tree import Payload

_FATBIN_ALIGNMENT = 16


class NewPayload(NamedTuple):
    """The bytes that take the place of ``payload``: its parts in order, what was put into it, and where it may start."""

    payload: Payload
    parts: tuple[Source, ...]
    new_images: tuple[ImageToAdd, ...]
    alignment: int = _FATBIN_ALIGNMENT

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def source(self) -> Source:
        """Its bytes."""
        return Source.joined(self.parts)


def common_alignment(moved: list[NewPayload]) -> int:
    """The alignment that all of them can do with."""
    return max(new.alignment for new in moved)


def room_for(new: NewPayload, alignment: int) -> int:
    """Bytes from its start to where the next one may start."""
    return new.size + -new.size % alignment
