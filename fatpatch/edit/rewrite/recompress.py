"""The images of a file compressed otherwise: smaller, or so that an older driver reads them. Not one byte of code changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from fatpatch.base.errors import EditError, FatpatchError
from fatpatch.base.records import NamedTuple
from fatpatch.base.scratch import Scratch
from fatpatch.base.source import Source
from fatpatch.base.workers import in_threads
from fatpatch.edit.filler import repacked, stays_in_place
from fatpatch.edit.host.host import Options
from fatpatch.edit.payload import bundle, fatbin
from fatpatch.edit.payload.new_payload import NewPayload
from fatpatch.edit.rewrite.estimate import Estimate, estimated, sample_of
from fatpatch.edit.rewrite.packing import DEMANDING, EntryTask, Packed, Packing, PackTask, packed
from fatpatch.edit.rewrite.remove_images import remaining
from fatpatch.edit.rewrite.rewrite_modules import Change, RewritePlan, planned
from fatpatch.gpus.drivers import first_zstd_driver
from fatpatch.model.kinds import PTX_TEXTS, BundleForm, Codec, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Node, Payload
from fatpatch.scan.coverage import payloads_below
from fatpatch.scan.pins import pinned
from fatpatch.scan.walk import Progress

LEVELS: dict[str, int] = {Codec.ZSTD: 22, Codec.LZ4: 12, Codec.NONE: 0}
"""The codecs, each with its highest level."""

_KINDS = PTX_TEXTS | {ImageKind.SASS}
_BUNDLE_VERSION = 2
_BUNDLE_LEVEL = 9


class RecompressRequest(NamedTuple):
    """The codec (none, lz4, zstd) and its level, and in which modules and archive members.

    ``dropped``: images of each payload, by its locator, that go at the same time. ``fill``: every fatbin keeps its place and size.
    Unless ``exact``, a sample of many images is compressed and the plan is an estimate, which cannot be carried out.
    """

    codec: str
    level: int | None = None
    modules: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    host: Options = Options()
    limit: int = 128 << 20
    dropped: Mapping[str, tuple[ImageEntry, ...]] = MappingProxyType({})
    fill: bool = False
    exact: bool = True


class Recompressed(NamedTuple):
    """The modules that were looked at, those that change, notes; ``estimate`` where only a sample was compressed."""

    modules: Sequence[tuple[Node, Payload]]
    changes: list[Change]
    notes: list[str]
    estimate: Estimate | None = None


def plan_recompress(node: Node, request: RecompressRequest, progress: Progress | None = None) -> RewritePlan:
    """Plan to compress every image again, where that gains or an older driver is to read it. EditError when there is nothing."""
    found = recompressed(node, request, progress)
    return planned(node, found.modules, found.changes, request.host, found.notes)._replace(estimate=found.estimate)


def recompressed(node: Node, request: RecompressRequest, progress: Progress | None = None) -> Recompressed:
    """What the request comes to, the host of the code not looked at. EditError when there is nothing to compress."""
    everything = [
        (holder, payload) for holder, payload in payloads_below(node) if payload.kind in (ModuleKind.FATBIN, ModuleKind.OFFLOAD_BUNDLE)
    ]
    if not everything:
        raise EditError("holds no fatbin and no bundle: there is nothing to compress", locator=node.locator)
    changes, notes = list[Change](), list[str]()
    modules = pinned(everything, request.modules, request.members)
    works = [_prepared(holder, payload, request) for holder, payload in modules]
    results, estimate = _results([task for work in works for task in work.tasks], request, progress)
    for (_, payload), work in zip(modules, works, strict=True):
        try:
            change = work.change([next(results) for _ in work.tasks])
        except FatpatchError as error:
            notes.append(f"{error.locator or payload.locator} is left as it is: {error.message}")
            continue
        if change is not None:
            changes.append(change)
    if request.codec == Codec.LZ4 and any(payload.vendor == Vendor.AMD for _, payload in modules):
        notes.append("bundles of AMD are left as they are: their runtime reads zstd and zlib only")
    return Recompressed(modules, changes, [*notes, *_floor(modules, request)], estimate)


def _results(tasks: Sequence[PackTask], request: RecompressRequest, progress: Progress | None) -> tuple[Iterator[Packed], Estimate | None]:
    """What each task comes to, done by all processors; most of them only estimated where that is enough."""
    how = Packing(request.codec, request.level, request.limit, Scratch(), threading.Lock())
    drawn = None if request.exact or request.codec == Codec.NONE else sample_of(tasks, request.level or 0)
    numbers = range(len(tasks)) if drawn is None else sorted(drawn)
    total, finished, done = sum(tasks[number].weight for number in numbers), 0, dict[int, Packed]()
    for number, result in zip(numbers, in_threads(lambda number: packed(tasks[number], how), numbers), strict=True):
        done[number] = result
        finished += tasks[number].weight
        if progress is not None:
            progress(tasks[number].locator, finished, total)
    if drawn is None:
        return iter(done.values()), None
    results, estimate = estimated(tasks, drawn, done, request.codec)
    return iter(results), estimate


def _floor(modules: Sequence[tuple[Node, Payload]], request: RecompressRequest) -> Iterator[str]:
    """What drivers must be able to do, before and after."""
    codecs = {image.compression for _, payload in modules for image in payload.images if payload.vendor == Vendor.NVIDIA}
    if not codecs:
        return
    linux, windows = first_zstd_driver()
    if request.codec == DEMANDING:
        was = "" if DEMANDING in codecs else ", what was there before by any"
        yield f"zstd is read by drivers from {linux} (Windows: {windows}) on{was}; on an older one loading fails with error 200"
    elif DEMANDING in codecs:
        yield f"before, unpacking zstd took a driver of {linux} (Windows: {windows}) or newer; what else the program needs stays"


class _FatbinWork(NamedTuple):
    """A fatbin to write anew: the entries that stay, and for each its task, None where it is left alone."""

    node: Node
    payload: Payload
    entries: Sequence[fatbin.EntryCopy]
    kept: tuple[ImageEntry, ...]
    packing: Sequence[EntryTask | None]
    fill: bool

    @property
    def tasks(self) -> list[EntryTask]:
        return [task for task in self.packing if task is not None]

    def change(self, results: Sequence[Packed]) -> Change | None:
        """None when nothing of it changes. The FatpatchError of a task is raised."""
        source, payload, rest = self.node.content, self.payload, map(_sound, results)
        made = [None if task is None else next(rest) for task in self.packing]
        gone = tuple(image for image in payload.images if image not in self.kept)
        if not gone and (self.fill or stays_in_place(self.node, payload)):
            new = repacked(source, payload, self.entries, made)
            return None if new is None else Change(self.node, payload, new, self.kept, filled=True)
        if not gone and not any(made):
            return None
        parts = [source.slice(entry.offset, entry.size) if new is None else new for entry, new in zip(self.entries, made, strict=True)]
        return Change(self.node, payload, fatbin.contained(payload, parts), self.kept, gone)


class _BundleWork(NamedTuple):
    """A bundle to write anew, which is its own task: by zstd, or not compressed at all."""

    node: Node
    payload: Payload
    request: RecompressRequest

    @property
    def source(self) -> Source:
        return self.node.content

    @property
    def weight(self) -> int:
        return sum(image.size or 0 for image in self.payload.images)

    @property
    def locator(self) -> str:
        return self.payload.locator

    @property
    def tasks(self) -> list[_BundleWork]:
        return [self]

    @property
    def _dropped(self) -> set[str | None]:
        return {image.identifier for image in self.request.dropped.get(self.payload.locator, ())}

    def pack(self, how: Packing) -> Source | None:
        """The whole bundle; None when that gains nothing."""
        payload, dropped = self.payload, self._dropped
        if how.codec == Codec.LZ4 or not payload.images:
            return None
        entries = [
            (entry.identifier, entry.data) for entry in bundle.entries_of(self.source, payload, how.limit) if entry.name not in dropped
        ]
        if how.codec == Codec.NONE:
            if payload.format != BundleForm.CCOB and not dropped:
                return None
            plain = payload._replace(format=BundleForm.PLAIN)
            return Source.joined([how.scratch.keep(part.read(0, part.size)) for part in bundle.bundled(entries, plain, how.limit)])
        wanted = payload._replace(
            format=BundleForm.CCOB,
            version=payload.version or _BUNDLE_VERSION,
            images=tuple(image._replace(compression=Codec.ZSTD) for image in payload.images),
        )
        (new,) = bundle.bundled(entries, wanted, how.limit, how.level or _BUNDLE_LEVEL)
        return how.scratch.keep(new.read(0, new.size)) if new.size < payload.size else None

    def change(self, results: Sequence[Packed]) -> Change | None:
        """None when it stays. The FatpatchError of the task is raised."""
        (new,) = map(_sound, results)
        images, dropped = self.payload.images, self._dropped
        kept, gone = (tuple(image for image in images if (image.identifier in dropped) == away) for away in (False, True))
        return None if new is None else Change(self.node, self.payload, NewPayload(self.payload, (new,), (), bundle.ALIGNMENT), kept, gone)


class _LeftAlone(NamedTuple):
    """A module on which there is nothing to do, and why."""

    error: FatpatchError
    tasks: tuple[()] = ()

    def change(self, results: Sequence[Packed]) -> Change | None:
        """Never: the error is raised."""
        raise self.error


def _sound(result: Packed) -> Source | None:
    """The new bytes; the error is raised."""
    if isinstance(result, FatpatchError):
        raise result
    return result


def _prepared(node: Node, payload: Payload, request: RecompressRequest) -> _FatbinWork | _BundleWork | _LeftAlone:
    """What there is to do on a module."""
    if payload.kind != ModuleKind.FATBIN:
        return _BundleWork(node, payload, request)
    dropped = {image.offset for image in request.dropped.get(payload.locator, ())}
    try:
        entries, kept = remaining(fatbin.entries_of(node.content, payload), payload.images, dropped)
    except FatpatchError as error:
        return _LeftAlone(error)
    by_offset = {image.offset: image for image in payload.images}
    packing = [_task(node.content, entry, by_offset.get(entry.offset), request.codec) for entry in entries]
    return _FatbinWork(node, payload, entries, kept, packing, request.fill)


def _task(source: Source, entry: fatbin.EntryCopy, image: ImageEntry | None, codec: str) -> EntryTask | None:
    """What to compress; None for what is left alone: shared blocks, obfuscated code, kinds that a driver does not load."""
    if image is None or image.within is not None or image.kind not in _KINDS or not image.readable:
        return None
    return None if codec == image.compression == Codec.NONE else EntryTask(source, entry, image)
