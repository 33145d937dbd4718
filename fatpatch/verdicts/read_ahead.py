"""The images that GPUs load, read by all processors before they are judged one by one.

Workers get a path and plain records, and send back what judging asks of an image; whatever cannot be read there is left to the judge,
so that its answers are the same with and without.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator

from fatpatch.base.errors import FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.base.workers import in_batches, in_order
from fatpatch.gpucode.seen import SeenBodies
from fatpatch.gpus.selection import choose
from fatpatch.model.kinds import Codec, ImageKind, ModuleKind
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.verdicts.environment import Environment
from fatpatch.verdicts.facts import FactsReader, ImageFacts
from fatpatch.verdicts.loading import open_image
from fatpatch.verdicts.opened import ImageOutline, OpenedImages

PARALLEL_FROM = 48 << 20
"""Unpacked bytes from which on further processes are worth their start."""


class _LoadedImage(NamedTuple):
    """An image as the driver sees it, and as the walk has listed it, in which source."""

    source: Source
    raw: ImageEntry
    listed: ImageEntry
    module: int


class _FactsTask(NamedTuple):
    path: str
    base: int
    size: int
    images: tuple[tuple[ImageEntry, ImageEntry], ...]
    limit: int


_Found = tuple[ImageOutline, ImageFacts] | None


def read_ahead(pairs: Iterable[tuple[Node, Payload]], environments: Iterable[Environment], reader: FactsReader) -> None:
    """Read what the GPUs load of the modules, where there is much of it and several processors; never in a worker of another run."""
    pairs, workers = list(pairs), os.cpu_count() or 1
    if workers < 2 or sum(image.size or 0 for _, payload in pairs for image in payload.images) < PARALLEL_FROM or _in_worker():
        return
    asked = {(each.device.arch, each.force_ptx): each for each in environments if each.device.arch is not None and not each.disable_ptx}
    _read_images(list(_loaded(pairs, list(asked), reader)), reader, workers)


def read_all_ahead(node: Node, reader: FactsReader, jobs: int | None) -> None:
    """Read every image of a library whose kernels have bodies to look at, under the same conditions; ``jobs`` as in ``survey``."""
    workers = jobs or os.cpu_count() or 1
    if workers < 2 or _in_worker() or node.source is None or node.source.path is None:
        return
    source, images = node.source, [(number, image) for number, payload in enumerate(node.payloads) for image in payload.images]
    wanted = (
        _LoadedImage(source, image, image, number)
        for number, image in images
        if image.kind in (ImageKind.SASS, ImageKind.PTX) and image.readable and image.within is None and not reader.knows(source, image)
    )
    _read_images(list(wanted), reader, workers)


def _read_images(images: list[_LoadedImage], reader: FactsReader, workers: int) -> None:
    """Read images in worker processes, where they are worth their start, and let the reader keep what was found."""
    if sum(image.listed.size or 0 for image in images) < PARALLEL_FROM:
        return
    batches = list(in_batches(images, lambda image: image.listed.size or 0, lambda first, second: first.module == second.module))
    by_source: dict[int, list[_LoadedImage]] = {}
    for image in images:
        by_source.setdefault(id(image.source), []).append(image)
    for mine in by_source.values():
        mine[0].source.prefetch((image.raw.data_offset, image.raw.data_offset + image.raw.stored_bytes) for image in mine)
    tasks = [tuple(_tasks(batch, reader.limit)) for batch in batches]
    flat = [image for batch in batches for image in batch]
    found = (each for results in in_order(_read_all, tasks, min(workers, len(tasks))) for each in results)
    for image, result in zip(flat, found, strict=True):
        if result is not None and not reader.adopt(image.source, image.raw, image.listed, *result):
            return


def _in_worker() -> bool:
    import multiprocessing

    return multiprocessing.parent_process() is not None


def _loaded(pairs: Iterable[tuple[Node, Payload]], asked: list[tuple[int | None, bool]], reader: FactsReader) -> Iterator[_LoadedImage]:
    """The images that are chosen for one of the (SM number, whether PTX is demanded), in file order, those that are known left out."""
    for module, (node, payload) in enumerate(pairs):
        if node.source is None or node.source.path is None:
            continue
        if payload.kind in (ModuleKind.CUBIN, ModuleKind.PTX):
            bare = payload.images[0]
            wanted = any(arch is not None and choose([bare], arch).image is not None for arch, _ in asked)
            if wanted and bare.readable and reader.opened.known(node.source, bare) is None:
                yield _LoadedImage(node.source, bare, bare, module)
        if payload.kind != ModuleKind.FATBIN:
            continue
        view = reader.view(node.source, payload)
        listed = {image.offset: image for image in payload.images if image.within is None}
        images = [listed.get(image.offset, image) for image in view.images] if view.error is None else []
        chosen = {image.offset for arch, force in asked if arch is not None and (image := choose(images, arch, force_ptx=force).image)}
        for raw in view.images:
            image = listed.get(raw.offset)
            readable = image is not None and image.kind in (ImageKind.SASS, ImageKind.PTX) and raw.kind == image.kind
            if raw.offset in chosen and image is not None and readable and reader.opened.known(node.source, raw) is None:
                yield _LoadedImage(node.source, raw, image, module)


def _tasks(batch: tuple[_LoadedImage, ...], limit: int) -> Iterator[_FactsTask]:
    """A task for each run of images of one source."""
    start = 0
    for end in range(1, len(batch) + 1):
        source = batch[start].source
        if end == len(batch) or not batch[end].source.shares(source) or batch[end].source.base != source.base:
            assert source.path is not None
            yield _FactsTask(source.path, source.base, source.size, tuple((each.raw, each.listed) for each in batch[start:end]), limit)
            start = end


@functools.lru_cache(maxsize=1)
def _seen() -> SeenBodies:
    """What this worker has seen so far."""
    return SeenBodies()


def _read_all(tasks: tuple[_FactsTask, ...]) -> list[_Found]:
    return [found for task in tasks for found in _read(task)]


def _read(task: _FactsTask) -> list[_Found]:
    source = Source.open(task.path)
    try:
        part = source.slice(task.base, task.size)
        reader = FactsReader(task.limit, source.size)
        reader.opened = OpenedImages(_seen())
        return [_facts(part, raw, listed, reader) for raw, listed in task.images]
    finally:
        source.close()


def _facts(source: Source, raw: ImageEntry, listed: ImageEntry, reader: FactsReader) -> _Found:
    try:
        if raw.compression == Codec.NONE and raw.stored_bytes > reader.limit:
            return None
        content = open_image(source, raw, reader.limit, reader.opened)
        if content is None:
            return None
        facts = reader.facts(source, listed, content)
    except FatpatchError:
        return None
    return None if facts.problem else (content.outline, facts)
