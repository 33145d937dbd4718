"""What a file holds more than once: images whose unpacked bytes are the same, and kernels whose machine code is.

Bytes are those that a copy costs: of images as stored, of kernels in the unpacked image.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.base.workers import in_order
from fatpatch.gpucode.body_bytes import kernel_code
from fatpatch.gpucode.content import ImageReader
from fatpatch.model.kinds import ImageKind
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, stored_ranges
from fatpatch.scan.coverage import holders, stored_share
from fatpatch.scan.survey import PARALLEL_FROM, image_batches

_Code = tuple[str, bytes, int]
"""A kernel's name, the digest of its machine code, and its bytes."""


class Copies(NamedTuple):
    """Images with the same bytes: their locators, the target, and what all but the first cost."""

    sha256: str
    target: str
    locators: tuple[str, ...]
    spare: int


class SameKernel(NamedTuple):
    """A kernel whose code is the same in several modules: their locators, and what all but the first cost."""

    name: str
    target: str
    locators: tuple[str, ...]
    spare: int


class Duplicates(NamedTuple):
    """The most costly first. ``images`` and ``stored`` are of the whole file, ``kernels`` and ``code`` of all SASS."""

    images: int
    stored: int
    copies: tuple[Copies, ...]
    kernels: int
    code: int
    same: tuple[SameKernel, ...]
    diagnostics: tuple[Diagnostic, ...]


class _HashTask(NamedTuple):
    path: str
    base: int
    size: int
    images: tuple[ImageEntry, ...]
    limit: int


class _Found(NamedTuple):
    sha256: str
    kernels: tuple[_Code, ...]
    problem: str | None


def duplicates(root: Node, *, limit: int, jobs: int | None = None) -> Duplicates:
    """Read every image below ``root`` and tell what is there twice."""
    images: dict[tuple[str, str], list[ImageEntry]] = {}
    kernels: dict[tuple[str, str, bytes], list[tuple[ImageEntry, int]]] = {}
    diagnostics, count, stored, names, code = [], 0, 0, 0, 0
    for image, found in _read(root, limit, jobs):
        count += 1
        stored += stored_share(image)
        if found.problem is not None:
            diagnostics.append(Diagnostic(image.locator, "error", image.offset, found.problem))
            continue
        images.setdefault((found.sha256, image.target), []).append(image)
        names += len(found.kernels)
        for name, digest, size in found.kernels:
            code += size
            kernels.setdefault((name, image.target, digest), []).append((image, size))
    copies = [
        Copies(sha256, target, tuple(each.locator for each in same), sum(map(stored_share, same[1:])))
        for (sha256, target), same in images.items()
        if len(same) > 1
    ]
    repeated = [
        SameKernel(name, target, tuple(image.locator for image, _ in same), sum(size for _, size in same[1:]))
        for (name, target, _), same in kernels.items()
        if len(same) > 1
    ]
    return Duplicates(
        count,
        stored,
        tuple(sorted(copies, key=lambda each: (-each.spare, each.locators))),
        names,
        code,
        tuple(sorted(repeated, key=lambda each: (-each.spare, each.name, each.target))),
        tuple(diagnostics),
    )


def _read(root: Node, limit: int, jobs: int | None) -> Iterator[tuple[ImageEntry, _Found]]:
    for node in holders(root):
        tasks = list(_tasks(node, limit))
        weight = sum(image.size or 0 for task in tasks for image in task.images)
        workers = min(jobs or os.cpu_count() or 1, len(tasks)) if weight >= PARALLEL_FROM else 1
        for task, results in zip(tasks, in_order(_look, tasks, workers), strict=True):
            yield from zip(task.images, results, strict=True)


def _tasks(node: Node, limit: int) -> Iterator[_HashTask]:
    if node.source is None or node.source.path is None:
        return
    node.source.prefetch(stored_ranges(node.payloads))
    for batch in image_batches(node):
        yield _HashTask(node.source.path, node.source.base, node.source.size, batch, limit)


def _look(task: _HashTask) -> list[_Found]:
    source = Source.open(task.path)
    try:
        reader = ImageReader(source.slice(task.base, task.size), task.limit)
        return [_found(reader, image) for image in task.images]
    finally:
        source.close()


def _found(reader: ImageReader, image: ImageEntry) -> _Found:
    try:
        data = reader.read(image)
    except FatpatchError as error:
        return _Found("", (), error.message)
    digest = hashlib.sha256(data).hexdigest()
    if image.kind != ImageKind.SASS:
        return _Found(digest, (), None)
    try:
        return _Found(digest, tuple(_codes(data)), None)
    except FatpatchError:  # its damage is told by --kernels
        return _Found(digest, (), None)


def _codes(data: bytes) -> Iterator[_Code]:
    for name, code in kernel_code("sass", data):
        yield name, hashlib.blake2b(code, digest_size=16).digest(), len(code)
