"""The pass over image contents: kernels of every image, in order, in worker processes when there is much to do.

Workers get a path and plain records and send plain rows back; nothing is held but a window of results, so memory does not
grow with the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.base.source_bytes import SourceBytes
from fatpatch.base.workers import in_batches, in_order
from fatpatch.gpucode.codec import IMAGE_LIMIT
from fatpatch.gpucode.content import ImageReader
from fatpatch.gpucode.debug import debug_kinds
from fatpatch.gpucode.kernels import read_image
from fatpatch.gpucode.rows import KernelFacts
from fatpatch.model.kinds import LAUNCHED, WITH_KERNELS, Codec, ImageKind
from fatpatch.model.target import Target
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, stored_ranges

PARALLEL_FROM = 48 << 20
"""Unpacked bytes from which on further processes are worth their start."""


class ImageSurvey(NamedTuple):
    """What reading an image whole has shown. ``problem`` is (message, offset in the image, field) when it failed."""

    rows: tuple[KernelFacts, ...] | None
    target: str | None = None
    code_version: str | None = None
    producer: str | None = None
    sha256: str | None = None
    problem: tuple[str, int | None, str | None] | None = None
    debug: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        """On the way between processes the rows are columns, None where nothing is known: a record takes ten times as long to pickle.

        A name that several images have goes once.
        """
        if not self.rows:
            return ImageSurvey, tuple(self)
        names, *columns = zip(*self.rows, strict=True)
        known = [None if column.count(None) == len(column) else column for column in columns]
        return _of_columns, (list(map(sys.intern, names)), known, *self[1:])


def _of_columns(names: list[str], columns: list[tuple[Any, ...] | None], *others: Any) -> ImageSurvey:
    rows = zip(names, *(repeat(None) if column is None else column for column in columns), strict=False)
    return ImageSurvey(tuple(map(tuple.__new__, repeat(KernelFacts), rows)), *others)


def kernels(node: Node, *, limit: int = IMAGE_LIMIT, jobs: int | None = None) -> Iterator[tuple[ImageEntry, tuple[KernelFacts, ...]]]:
    """(image, kernels) for every image below ``node`` that could be read: the library's way to what ``--kernels`` prints."""
    for image, finding in survey([node], limit=limit, jobs=jobs):
        if finding.rows is not None:
            yield image, finding.rows


def complaint_of(image: ImageEntry, finding: ImageSurvey) -> Diagnostic | None:
    """The diagnostic of an image that could not be read whole, or that says another target than its entry."""
    if finding.problem is not None:
        message, offset, field = finding.problem
        inside = "" if offset is None or image.compression == Codec.NONE else f" (offset {offset:#x} of the unpacked image)"
        where = image.data_offset + (offset or 0) if image.compression == Codec.NONE else image.data_offset
        return Diagnostic(locator=image.locator, level="error", offset=where, message=message + inside, field=field)
    if finding.target is not None and not _same_target(image, finding.target):
        message = f"the entry says {image.target}, the image itself {finding.target}"
        return Diagnostic(locator=image.locator, level="warning", offset=image.offset, message=message, field="arch")
    return None


def _same_target(image: ImageEntry, read: str) -> bool:
    """Whether an entry's target and that of its image mean the same; that of a cubin has no f."""
    if image.kind == ImageKind.HSACO:
        return Target(image.target).means(read)
    plain = image.target.rstrip("f") if image.kind == ImageKind.SASS else image.target
    return read.rstrip("f") == plain


class _SurveyTask(NamedTuple):
    path: str
    base: int
    size: int
    images: tuple[ImageEntry, ...]
    limit: int
    digest: bool
    detail: bool
    debug: bool


def survey(
    nodes: Iterable[Node], *, limit: int, digest: bool = False, detail: bool = True, debug: bool = False, jobs: int | None = None
) -> Iterator[tuple[ImageEntry, ImageSurvey]]:
    """(image, finding) for every image below the nodes, in document order.

    ``jobs`` processes (default: the processors there are) share the work when it is worth their start; ``digest`` asks for the sha256 of
    each unpacked image, ``debug`` for what it holds for debuggers; without ``detail`` kernels have a name and registers only, at half the
    time.
    """
    wish = _SurveyTask("", 0, 0, (), limit, digest, detail, debug)
    batches = list(in_batches((task for node in nodes for task in _tasks(node, wish)), _weight))
    work = sum(_weight(task) for batch in batches for task in batch)
    workers = min(jobs or os.cpu_count() or 1, len(batches))
    results = in_order(_read_all, batches, workers if work >= PARALLEL_FROM else 1)
    for batch, found in zip(batches, results, strict=True):
        for task, findings in zip(batch, found, strict=True):
            yield from zip(task.images, findings, strict=True)


def _weight(task: _SurveyTask) -> int:
    return sum(image.size or 0 for image in task.images)


def _tasks(node: Node, wish: _SurveyTask) -> Iterator[_SurveyTask]:
    """The work on a file and its members, in document order."""
    for member in node.members:
        yield from _tasks(member, wish)
    if node.source is None or node.source.path is None:
        return
    node.source.prefetch(stored_ranges(node.payloads))
    for batch in image_batches(node):
        yield wish._replace(path=node.source.path, base=node.source.base, size=node.source.size, images=batch)


def image_batches(node: Node) -> Iterator[tuple[ImageEntry, ...]]:
    """Batches of a file's neighbouring images; those that share a blob stay together, so that it is unpacked once."""
    return in_batches((image for payload in node.payloads for image in payload.images), lambda image: image.size or 0, _share_a_blob)


def _share_a_blob(first: ImageEntry, second: ImageEntry) -> bool:
    return second.within is not None and second.data_offset == first.data_offset


def _read_all(batch: tuple[_SurveyTask, ...]) -> list[list[ImageSurvey]]:
    return list(map(_read, batch))


def _read(task: _SurveyTask) -> list[ImageSurvey]:
    source = Source.open(task.path)
    try:
        reader = ImageReader(source.slice(task.base, task.size), task.limit)
        return list(_findings(reader, task))
    finally:
        source.close()


def _findings(reader: ImageReader, task: _SurveyTask) -> Iterator[ImageSurvey]:
    """One for each image; of a damaged blob that several share only the first says so."""
    damaged = -1
    for image in task.images:
        if image.within is not None and image.data_offset == damaged:
            yield ImageSurvey(None)
            continue
        finding = _finding(reader, image, task)
        if finding.problem is not None and image.within is not None and not reader.holds(image):
            damaged = image.data_offset
            message, offset, field = finding.problem
            finding = finding._replace(problem=(f"{message}; so nothing of this blob can be read", offset, field))
        yield finding


def _finding(reader: ImageReader, image: ImageEntry, task: _SurveyTask) -> ImageSurvey:
    wanted = image.kind in WITH_KERNELS
    if not image.readable or not (wanted or task.digest):
        return ImageSurvey(None)
    try:
        data = reader.view(image)
        sha256 = _sha256(data) if task.digest else None
        if not wanted:
            return ImageSurvey(None, sha256=sha256)
        debug = frozenset[str]()
        if task.debug and image.kind in LAUNCHED:
            debug = debug_kinds(image.kind, data if isinstance(data, bytes) else reader.read(image))
        reading = read_image(image.kind, data, detail=task.detail)
        return ImageSurvey(tuple(reading.kernels), reading.target, reading.code_version, reading.producer, sha256, None, debug)
    except FatpatchError as error:
        advice = f"; {error.hint}" if error.hint else ""
        return ImageSurvey(None, problem=(error.message + advice, error.offset, error.field))


def _sha256(data: bytes | SourceBytes) -> str:
    import hashlib

    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    engine = hashlib.sha256()
    for chunk in data.chunks():
        engine.update(chunk)
    return engine.hexdigest()
