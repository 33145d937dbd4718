"""What a file would weigh without some targets, or compressed otherwise: measured by compressing, nothing is written.

Sizes are bytes of GPU code as stored. Parts of a blob that several images share are counted by their share of its unpacked bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from fatpatch.coverage import holders, target_key
from fatpatch.errors import FatpatchError
from fatpatch.locator import target_matches
from fatpatch.model import Diagnostic, Image, Node, Payload, place_of, stored_ranges
from fatpatch.payloads.compression import pack
from fatpatch.payloads.content import ImageReader
from fatpatch.source import Source
from fatpatch.walk import Progress
from fatpatch.workers import in_batches, in_order

LEVELS = {"zstd": 22, "lz4": 12, "zlib": 9, "none": 0}
"""The codecs, each with its highest level."""

_METHODS = {"fatbin": frozenset(LEVELS), "offload_bundle": frozenset({"zstd", "zlib", "none"})}
_BUNDLE_HEADER = 32
_PARALLEL_FROM = 16 << 20


class Plan(NamedTuple):
    """What to do: patterns of targets to drop, and how to compress the rest; no ``codec`` leaves it as it is."""

    drop: tuple[str, ...] = ()
    codec: str | None = None
    level: int | None = None


class Row(NamedTuple):
    """All images of one target at one place: bytes now and then."""

    target: str
    images: int
    stored: int
    then: int
    dropped: bool


class Saving(NamedTuple):
    """One place. ``kept``: payloads of a kind that the codec is not for. ``shared``: whether images share blobs, so rows are shares."""

    place: str
    rows: tuple[Row, ...]
    diagnostics: tuple[Diagnostic, ...]
    kept: int
    shared: bool

    @property
    def stored(self) -> int:
        """Bytes now."""
        return sum(row.stored for row in self.rows)

    @property
    def then(self) -> int:
        """Bytes that it would take."""
        return sum(row.then for row in self.rows)


def plan(text: str) -> Plan:
    """Read ``drop=sm_50,sm_52;compress=zstd-19``; ValueError, saying what is expected, for anything else."""
    drop: list[str] = []
    codec, level = None, None
    for part in filter(None, (part.strip() for part in text.split(";"))):
        word, _, value = part.partition("=")
        if word.strip() == "drop" and value.strip(" ,"):
            drop += [target.strip() for target in value.split(",") if target.strip()]
        elif word.strip() == "compress" and (found := re.fullmatch(r"(zstd|lz4|zlib|none)(?:-(\d{1,2}))?", value.strip(), re.ASCII)):
            codec, level = found[1], int(found[2]) if found[2] else None
            if level is not None and not 1 <= level <= LEVELS[codec]:
                raise ValueError(f"a level of {codec} from 1 to {LEVELS[codec]}" if LEVELS[codec] else f"no level after {codec}")
        else:
            raise ValueError("parts such as drop=sm_50,sm_52 and compress=zstd-19 (zstd, lz4, zlib, none), with ; between them")
    if not drop and codec is None:
        raise ValueError("something to do, such as drop=sm_50,sm_52;compress=zstd-19")
    return Plan(tuple(drop), codec, level)


class _Unit(NamedTuple):
    """Images that are compressed together: one, those of a shared blob, or those of a bundle. ``now``: bytes with headers.

    ``span``: where a plain bundle lies, [start, end); None for all else.
    """

    images: tuple[Image, ...]
    keep: tuple[bool, ...]
    now: int
    header: int
    codec: str | None
    bundle: bool
    span: tuple[int, int] | None


class _Task(NamedTuple):
    path: str
    base: int
    size: int
    units: tuple[_Unit, ...]
    level: int | None
    limit: int


def savings(root: Node, wish: Plan, *, limit: int, jobs: int | None = None, progress: Progress | None = None) -> Iterator[Saving]:
    """One for each place below ``root`` that holds images, members first; in worker processes where there is much to compress."""
    for node in holders(root):
        places: dict[str, list[Payload]] = {}
        for payload in node.payloads:
            places.setdefault(place_of(payload), []).append(payload)
        for place, payloads in places.items():
            yield _saving(node, place, payloads, wish, limit, jobs, progress)


def _saving(
    node: Node, place: str, payloads: Sequence[Payload], wish: Plan, limit: int, jobs: int | None, progress: Progress | None
) -> Saving:
    units = [unit for payload in payloads for unit in _units(payload, wish)]
    tasks = list(_tasks(node, units, wish, limit))
    work = sum(image.size or 0 for unit in units for image in unit.images if _to_pack(unit))
    workers = min(jobs or os.cpu_count() or 1, len(tasks)) if work >= _PARALLEL_FROM else 1
    rows: dict[str, list[int]] = {}
    diagnostics = []
    for done, (task, results) in enumerate(zip(tasks, in_order(_weigh, tasks, workers), strict=True)):
        if progress is not None:
            progress(place, done, len(tasks))
        for unit, (then, problem) in zip(task.units, results, strict=True):
            if problem is not None:
                diagnostics.append(Diagnostic(unit.images[0].locator, "error", unit.images[0].offset, problem))
            _add(rows, unit, then)
    dropped = {target for target in rows if _dropped(target, wish)}
    return Saving(
        place=place,
        rows=tuple(_row(target, rows[target], target in dropped) for target in sorted(rows, key=target_key)),
        diagnostics=tuple(diagnostics),
        kept=sum(wish.codec is not None and wish.codec not in _METHODS.get(payload.kind, ()) for payload in payloads),
        shared=any(len(unit.images) > 1 for unit in units),
    )


def _row(target: str, counts: Sequence[int], dropped: bool) -> Row:
    images, stored, then = counts
    return Row(target, images, stored, then, dropped)


def _dropped(target: str, wish: Plan) -> bool:
    return any(target_matches(target, pattern) for pattern in wish.drop)


def _units(payload: Payload, wish: Plan) -> Iterator[_Unit]:
    codec = wish.codec if wish.codec in _METHODS.get(payload.kind, ()) else None
    packed = any(image.compression != "none" for image in payload.images)
    bundle = payload.kind == "offload_bundle" and (packed or codec is not None)  # a plain one can lose objects one by one
    groups: dict[int, list[Image]] = {}
    for image in payload.images:
        groups.setdefault(payload.offset if bundle else image.data_offset, []).append(image)
    for images in groups.values():
        first = images[0]
        header = _BUNDLE_HEADER if bundle else first.data_offset - min(image.offset for image in images)
        now = header + (_padded(first.stored_bytes) if payload.kind == "fatbin" else first.stored_bytes)
        if bundle:
            now = payload.size
        keep = tuple(not _dropped(image.target, wish) for image in images)
        span = (payload.offset, payload.offset + payload.size) if bundle and not packed else None
        yield _Unit(tuple(images), keep, now, header, codec, bundle, span)


def _to_pack(unit: _Unit) -> bool:
    """Whether compressing is needed to know the size."""
    if not any(unit.keep):
        return False
    return unit.codec is not None or (not all(unit.keep) and unit.images[0].compression != "none")


def _tasks(node: Node, units: Iterable[_Unit], wish: Plan, limit: int) -> Iterator[_Task]:
    if node.source is None or node.source.path is None:
        return
    node.source.prefetch(stored_ranges(node.payloads))
    for batch in in_batches(units, lambda unit: sum(image.size or 0 for image in unit.images)):
        yield _Task(node.source.path, node.source.base, node.source.size, batch, wish.level, limit)


def _weigh(task: _Task) -> list[tuple[int, str | None]]:
    """(bytes with headers, why it cannot be told) of each unit; a unit that cannot be read stays as large as it is."""
    source = Source.open(task.path)
    try:
        reader = ImageReader(source.slice(task.base, task.size), task.limit)
        results: list[tuple[int, str | None]] = []
        for unit in task.units:
            try:
                results.append((_weight(reader, unit, task.level), None))
            except FatpatchError as error:
                results.append((unit.now, error.message))
        return results
    finally:
        source.close()


def _weight(reader: ImageReader, unit: _Unit, level: int | None) -> int:
    if not any(unit.keep):
        return 0
    if not _to_pack(unit):
        return unit.now
    data = _inside(reader, unit)
    packed = pack(data, unit.codec or unit.images[0].compression, level if unit.codec else None, long_range=unit.bundle)
    least = min(len(packed), len(data))
    return unit.header + (least if unit.bundle else _padded(least))


def _inside(reader: ImageReader, unit: _Unit) -> bytes:
    """What is compressed: the image; of a shared blob or bundle everything but what is dropped, its headers and padding too."""
    first = unit.images[0]
    if unit.span is not None:
        start, end = unit.span
        data, places = reader.range(start, end), [(image.data_offset - start, image.stored_bytes) for image in unit.images]
    elif first.within is not None:
        data, places = reader.blob(first), [(image.within[0], image.within[1] - image.within[0]) for image in unit.images if image.within]
    else:
        return reader.read(first)
    pieces, at = [], 0
    for (offset, length), keep in sorted(zip(places, unit.keep, strict=True)):
        if not keep and offset >= at:
            pieces.append(data[at:offset])
            at = offset + length
    return b"".join([*pieces, data[at:]])


def _padded(size: int) -> int:
    """The payload of a fatbin entry ends at a multiple of 8."""
    return -(-size // 8) * 8


def _add(rows: dict[str, list[int]], unit: _Unit, then: int) -> None:
    now_shares = _shares(unit.now, [image.size or 0 for image in unit.images])
    then_shares = _shares(then, [(image.size or 0) if keep else 0 for image, keep in zip(unit.images, unit.keep, strict=True)])
    for image, now, later in zip(unit.images, now_shares, then_shares, strict=True):
        row = rows.setdefault(image.target, [0, 0, 0])
        row[0] += 1
        row[1] += now
        row[2] += later


def _shares(total: int, weights: Sequence[int]) -> list[int]:
    """Whole numbers in the proportion of the weights, with the total as their sum; equal ones when all weights are 0."""
    if not any(weights):
        weights = [1] * len(weights)
    whole, seen, given = sum(weights), 0, 0
    shares = []
    for weight in weights:
        seen += weight
        share = total * seen // whole - given
        shares.append(share)
        given += share
    return shares
