"""What the rules look at: one file, or one member of an archive, that holds GPU code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from fatpatch.coverage import payloads_below, target_key
from fatpatch.gate.policy import Demands
from fatpatch.images.debug import debug_kinds
from fatpatch.images.rows import KernelRow
from fatpatch.locator import target_matches
from fatpatch.model import Image, Node, Payload, place_of
from fatpatch.payloads.content import ImageReader
from fatpatch.survey import Finding as Read
from fatpatch.survey import survey
from fatpatch.verdicts.doctor import Doctor


class Hit(NamedTuple):
    """What a rule says of a place; ``key`` tells it from other hits of the rule there."""

    locator: str
    message: str
    remedy: str = ""
    key: str = ""


class Subject:
    """One holder of GPU code with the demands on it. What costs time is read when a rule asks for it."""

    def __init__(
        self, file: str, root: Node, node: Node, demands: Demands, limit: int, doctor: Callable[[], Doctor], *, meant: bool
    ) -> None:
        self.file, self.root, self.node, self.demands, self.limit = file, root, node, demands, limit
        self.doctor = doctor
        self.meant = meant  # the file was named, not merely met in a folder

    def concerns(self, vendor: str) -> bool:
        """Whether a demand for a maker's GPUs is for this holder: it has such code, or nothing in a file that was named has, and it is
        the first one there.
        """
        if any(payload.vendor == vendor for payload in self.payloads):
            return True
        if not self.meant:
            return False
        holders = [payload for _, payload in payloads_below(self.root)]
        return not any(payload.vendor == vendor for payload in holders) and self.payloads[0] is holders[0]

    @property
    def locator(self) -> str:
        return self.node.locator

    @property
    def payloads(self) -> tuple[Payload, ...]:
        return self.node.payloads

    @cached_property
    def images(self) -> list[Image]:
        """All images, in file order."""
        return [image for payload in self.payloads for image in payload.images]

    @cached_property
    def targets(self) -> list[str]:
        """The targets that occur, in order."""
        return sorted({image.target for image in self.images}, key=target_key)

    def holding(self, pattern: str) -> list[Image]:
        """The images for a target."""
        return [image for image in self.images if target_matches(image.target, pattern)]

    @cached_property
    def readings(self) -> list[tuple[Payload, Image, Read]]:
        """Every image with its kernels."""
        alone = self.node._replace(members=())
        found = survey([alone], limit=self.limit, detail=False, jobs=1)
        pairs = [(payload, image) for payload in self.payloads for image in payload.images]
        return [(payload, image, reading) for (payload, image), (_, reading) in zip(pairs, found, strict=True)]

    def places(self) -> Iterator[tuple[str, list[tuple[Payload, Image, tuple[KernelRow, ...]]]]]:
        """The readable images with their kernels, by the place that they share."""
        groups: dict[str, list[tuple[Payload, Image, tuple[KernelRow, ...]]]] = {}
        for payload, image, reading in self.readings:
            if reading.rows is not None:
                groups.setdefault(place_of(payload), []).append((payload, image, reading.rows))
        yield from groups.items()

    def debug(self) -> Iterator[tuple[Image, frozenset[str]]]:
        """Images with what they hold for debuggers: ``debug``, ``lineinfo``."""
        if self.node.source is None:
            return
        reader = ImageReader(self.node.source, self.limit)
        for image in self.images:
            wanted = image.readable and image.kind in ("sass", "ptx", "reloc-ptx", "hsaco")
            if wanted and (found := debug_kinds(image.kind, reader.read(image))):
                yield image, found
