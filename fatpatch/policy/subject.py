"""What the rules look at: one file, or one member of an archive, that holds GPU code."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from fatpatch.base.locator import target_matches
from fatpatch.base.records import NamedTuple
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.model.target import target_key
from fatpatch.model.tree import ImageEntry, Node, Payload, place_of
from fatpatch.policy.policy import Demands
from fatpatch.scan.coverage import holders
from fatpatch.scan.survey import ImageSurvey, survey
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.judge import Doctor, libraries
from fatpatch.verdicts.outcome import works
from fatpatch.verdicts.results import FileVerdict


class Hit(NamedTuple):
    """What a rule says of a place; ``key`` tells it from other hits of the rule there."""

    locator: str
    message: str
    remedy: str = ""
    key: str = ""


class Inspected:
    """One file that was read, ``shown`` so: what all holders in it share. ``jobs`` processes may read its images."""

    def __init__(self, shown: str, root: Node, limit: int, jobs: int | None) -> None:
        self.shown, self.root, self.limit, self.jobs = shown, root, limit, jobs
        self.holders = holders(root)
        self.vendors = frozenset(payload.vendor for node in self.holders for payload in node.payloads)
        self._verdicts: dict[Environment, tuple[FileVerdict, dict[str, FileVerdict]]] = {}

    @cached_property
    def doctor(self) -> Doctor:
        """Of the whole file."""
        return Doctor(self.root, limit=self.limit)

    def verdict(self, environment: Environment, locator: str) -> FileVerdict:
        """On the holder at ``locator``, or on the whole file where that has no module of its own there; judged once for all."""
        if environment not in self._verdicts:
            whole = self.doctor.judge(environment)
            self._verdicts[environment] = whole, {node.locator: verdict for node, verdict in libraries(whole)}
        whole, each = self._verdicts[environment]
        return each.get(locator, whole)

    def has_working_alternative(self, environment: Environment, locator: str) -> bool:
        """Whether another library that a program would load in this one's place runs."""
        self.verdict(environment, locator)
        for group in self._verdicts[environment][0].alternatives:
            if any(unit.node.locator == locator for unit in group):
                return any(works(unit) for unit in group)
        return False


class RuleSubject:
    """One holder of GPU code with the demands on it. What costs time is read when a rule asks for it."""

    def __init__(self, inside: Inspected, node: Node, demands: Demands, *, meant: bool) -> None:
        self.inside, self.node, self.demands = inside, node, demands
        self.meant = meant  # the file was named, not merely met in a folder

    def concerns(self, vendor: str) -> bool:
        """Whether a demand for a vendor's GPUs is for this holder: it has such code, or nothing in a file that was named has, and it is
        the first one there.
        """
        if any(payload.vendor == vendor for payload in self.payloads):
            return True
        if not self.meant:
            return False
        return vendor not in self.inside.vendors and self.node is self.inside.holders[0]

    @property
    def locator(self) -> str:
        return self.node.locator

    @property
    def payloads(self) -> tuple[Payload, ...]:
        return self.node.payloads

    @cached_property
    def images(self) -> list[ImageEntry]:
        """All images, in file order."""
        return [image for payload in self.payloads for image in payload.images]

    @cached_property
    def targets(self) -> list[str]:
        """The targets that occur, in order."""
        return sorted({image.target for image in self.images}, key=target_key)

    def holding(self, pattern: str) -> list[ImageEntry]:
        """The images for a target."""
        return [image for image in self.images if target_matches(image.target, pattern)]

    @cached_property
    def readings(self) -> list[tuple[Payload, ImageEntry, ImageSurvey]]:
        """Every image with its kernels."""
        alone = self.node._replace(members=())
        debug = self.demands.no_debug_info or self.demands.no_line_info
        found = survey([alone], limit=self.inside.limit, detail=False, debug=debug, jobs=self.inside.jobs)
        pairs = [(payload, image) for payload in self.payloads for image in payload.images]
        return [(payload, image, reading) for (payload, image), (_, reading) in zip(pairs, found, strict=True)]

    def places(self) -> Iterator[tuple[str, list[tuple[Payload, ImageEntry, tuple[KernelFacts, ...]]]]]:
        """The readable images with their kernels, by the place that they share."""
        groups: dict[str, list[tuple[Payload, ImageEntry, tuple[KernelFacts, ...]]]] = {}
        for payload, image, reading in self.readings:
            if reading.rows is not None:
                groups.setdefault(place_of(payload), []).append((payload, image, reading.rows))
        yield from groups.items()

    def debug(self) -> Iterator[tuple[ImageEntry, frozenset[str]]]:
        """Images with what they hold for debuggers, if that is forbidden: ``debug``, ``lineinfo``."""
        return ((image, reading.debug) for _, image, reading in self.readings if reading.debug)
