"""Samples of the CUDA modules in a large wheel: its libraries' section tables, and some of their fatbins' headers, by a few ranges.

A library in a wheel is one deflate stream, and its fatbins are spread over it. Its end has the section table; parts of its middle show
entry headers. A chain of entries that is longer than a part is followed by jumps, and is right when its sizes add up.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Sequence
from typing import Final

from fatpatch.base.errors import FatpatchError
from fatpatch.base.locator import join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source, SourceStream
from fatpatch.binfmt.deflate import DeflatePart, from_middle, from_start
from fatpatch.binfmt.elf import read as elf
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.entry import HEADER, Header
from fatpatch.gpucode.fatbin.read import CONTAINER, STRICT_MAGIC
from fatpatch.gpucode.vacant import is_without_kernels
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ContainerKind, ImageKind, ModuleKind, Vendor
from fatpatch.model.tree import ImageEntry, Node, Payload, Section, Wrapper
from fatpatch.scan.entry_headers import candidates, entry_of, header_at
from fatpatch.scan.ledgers import LIBRARY
from fatpatch.scan.spread import spread

_ENOUGH: Final = 2
_LEAST: Final = 4 << 20
"""Packed bytes of all libraries of a wheel from which on samples are taken."""

_TAIL: Final = 128 << 10
_SHORT_STREAM: Final = 256 << 10
_PART: Final = 160 << 10
_SHORT: Final = 72 << 10
_GUESSED: Final = 6
_LEARNT: Final = 16
"""By so much the estimate of a jump may be wrong: a sixth of its way, or a sixteenth after one that succeeded."""

_ENOUGH_PACKED: Final = 12 << 10
_NEAR: Final = 320 << 10
_PARTS: Final = 24
_GOLDEN: Final = 0.6180339887498949
"""By it places are spread evenly over the region, however many are taken."""

_OF_ONE_PLACE: Final = 3
_MOST_FOUND: Final = 60
_SMALL: Final = 64 << 10
_BUDGET: Final = 4_500_000
_MOST_DIRECTORY: Final = 16 << 20
_FATBINS: Final = (".nv_fatbin", "__nv_relfatbin")
_SEGMENT: Final = ".nvFatBinSegment"
_WRAPPER_SIZE: Final = 24
_TEXT_RATIO: Final = 0.4


class SampledTree(NamedTuple):
    """A tree with the modules that were read, of ``modules`` in all."""

    root: Node
    sampled: int
    modules: int


class _Packed(NamedTuple):
    """A library in the wheel: its name, its packed bytes, and what they unpack to."""

    name: str
    source: Source
    size: int


class _Table(NamedTuple):
    """What the section table of a library says: where its fatbins lie when unpacked, and how many wrappers lead to them."""

    detail: str
    start: int
    size: int
    modules: int


def sampled(source: Source, name: str) -> SampledTree | None:
    """Samples of a wheel's CUDA code; None where it must be read whole.

    That is a small wheel or none; one whose tables or modules are not found by a few ranges; and one in which modules of a library are for
    different targets, since then a few say nothing of the rest. AMD's code is not looked at.
    """
    libraries = _libraries(source)
    if sum(each.source.size for each in libraries) < _LEAST:
        return None
    tables = []
    for library in libraries:
        table = _table(library) if library.size >= _SMALL else _Table("", 0, 0, 0)
        if table is None:
            return None
        if table.size:
            tables.append((library, table))
    chosen = [tables[index] for index in spread([library.name for library, _ in tables])]
    members, count = [], 0
    for library, table in chosen:
        region = _Region(library, table, _BUDGET // len(chosen))
        payloads = _payloads(region, join(name, library.name))
        if not _alike(payloads, region):
            return None
        count += len(payloads)
        members.append(Node(join(name, library.name), library.name, library.size, ContainerKind.ELF, table.detail, (), tuple(payloads), ()))
    if not members:
        return None
    root = Node(name, name, source.size, ContainerKind.ZIP, "", tuple(members), (), (), member_count=len(members))
    return SampledTree(root, count, sum(table.modules for _, table in tables))


def _end(library: _Packed, size: int) -> DeflatePart | None:
    """The last packed bytes of a library; of a short one all."""
    if library.source.size <= _SHORT_STREAM or library.source.size <= size:
        data = from_start(library.source.peek(0, library.source.size), library.size)
        return DeflatePart(data, data, 0, len(data) == library.size)
    return from_middle(library.source.peek(library.source.size - size, size))


def _alike(payloads: Sequence[Payload], region: _Region) -> bool:
    """Whether the modules stand for all: several with kernels, from several places or nearly all that there are, for the same targets.

    No header that was met anywhere may be for another target: modules of one kind often lie together.
    """
    full = [payload for payload in payloads if not is_without_kernels(payload)]
    targets = {frozenset((image.kind, image.target) for image in payload.images) for payload in full}
    return region.enough(payloads) and len(targets) == 1 and region.met <= next(iter(targets))


def _libraries(source: Source) -> list[_Packed]:
    """The deflated libraries of a wheel; none where something in it is stored, since that can be read where it lies."""
    try:
        with zipfile.ZipFile(SourceStream(source)) as wheel:
            rows = [row for row in wheel.infolist() if LIBRARY.search(row.filename) and row.file_size]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, FatpatchError):
        return []
    if any(row.compress_type != zipfile.ZIP_DEFLATED or row.flag_bits & 1 for row in rows):
        return []
    found = []
    for row in rows:
        local = source.peek(row.header_offset, 30)
        if len(local) < 30 or local[:4] != n.ZIP_LOCAL_MAGIC:
            return []
        start = row.header_offset + 30 + sum(struct.unpack_from("<HH", local, 26))
        if start + row.compress_size > source.size:
            return []
        found.append(_Packed(row.filename, source.slice(start, row.compress_size), row.file_size))
    return found


def _table(library: _Packed) -> _Table | None:
    """The section table of an ELF library, from the end of its stream; None where it cannot be had."""
    head = from_start(library.source.peek(0, 16 << 10), 64)
    if head[:4] != n.ELF_MAGIC:
        return None
    tail, at = None, 0
    for size in (_TAIL, _TAIL * 5 // 4, _TAIL * 2):
        tail = _end(library, size)
        at = int.from_bytes(head[40:48], "little") - (library.size - len(tail.data)) if tail is not None else -1
        if tail is not None and tail.likely(at, at + 64):
            break
    if tail is None or not tail.ended or len(head) < 64 or not tail.likely(at, at + 64):
        return None
    whole = Source.joined([Source.of(head), Source.zeros(library.size - 64 - len(tail.data)), Source.of(tail.data)])
    diagnostics = Diagnostics()
    try:
        container = elf.read(whole, library.name, diagnostics)
    except FatpatchError:
        return None
    names = {section.name: section for section in container.sections}
    if diagnostics.finish() or not container.sections:
        return None
    regions = [names[each] for each in _FATBINS if each in names]
    modules = names.get(_SEGMENT, Section("", 0, 0)).size // _WRAPPER_SIZE
    if not regions:
        return _Table(container.detail, 0, 0, 0)
    start = min(region.offset for region in regions)
    return _Table(container.detail, start, max(region.offset + region.size for region in regions) - start, modules)


def _payloads(region: _Region, locator: str) -> list[Payload]:
    """Whole modules from some places of a library's fatbins, within the budget."""
    found: list[Payload] = []
    for spot in region.spots():
        before = len(found)
        for headers in region.modules(spot):
            where = join(locator, f"fatbin[{len(found)}]")
            images = [entry_of(header, join(where, str(index)), index) for index, header in enumerate(headers)]
            found.append(_payload(images, where, len(found)))
            if len(found) - before >= _OF_ONE_PLACE or region.enough(found):
                break
        region.places += any(not is_without_kernels(each) for each in found[before:])
        if region.enough(found) or len(found) >= _MOST_FOUND:
            break
    return found


class _Spot(NamedTuple):
    """A part of the packed bytes with where it lies, and a place in what it unpacks to.

    ``ratio``: of unpacked to packed bytes, as it was from the place before to this one; None where there was none.
    """

    part: DeflatePart
    at: int
    place: int = 0
    ratio: float | None = None

    @property
    def packed(self) -> int:
        """Where the place lies in the packed bytes."""
        return self.at + self.part.start + self.part.packed_before(self.place)


class _Region:
    """The fatbins of a library in its packed bytes: where they lie is estimated, and what is read is counted.

    ``places``: how many gave modules with kernels; ``met``: the targets of every header in what was read.
    """

    def __init__(self, library: _Packed, table: _Table, budget: int) -> None:
        self.source, self.left, self.table = library.source, budget, table
        self.places, self.met = 0, set[tuple[ImageKind, str]]()
        packed, rest = library.source.size, library.size - table.size
        fatbins = max(packed - int(rest * _TEXT_RATIO), packed // 4)
        self.start = max(min(int(table.start * _TEXT_RATIO), packed - fatbins), 0)
        self.end = min(self.start + fatbins, packed)

    def spots(self) -> Iterator[_Spot]:
        """The beginning, where that is near that of the stream, and places spread over the region."""
        if self.table.start <= _NEAR and self.left >= _NEAR:
            data = self._packed(0, _NEAR)
            plain = from_start(data, _NEAR * 16)
            yield _Spot(DeflatePart(plain, plain, 0, False, data), 0, self.table.start)
        room = max(self.end - self.start - _PART, 0)
        for index in range(_PARTS):
            spot = self._read(self.start + int(room * ((index + 1) * _GOLDEN % 1)), _PART)
            if spot is not None:
                yield spot

    def modules(self, spot: _Spot) -> Iterator[list[Header]]:
        """The headers of whole modules from a spot on, as long as the budget lasts."""
        current: _Spot | None = spot if _is_fatbin(spot.part, spot.place) else _first(spot)
        while current is not None:
            headers, left = list[Header](), None
            if _is_fatbin(current.part, current.place):
                left = CONTAINER.unpack_from(current.part.data, current.place)[3]
                current = current._replace(place=current.place + CONTAINER.size)
            while left is None or left > 0:  # entries of a module whose beginning was not seen lead to the next one
                header = header_at(current.part, current.place)
                if header is None:
                    break
                step = header.header_size + header.payload_size
                headers.append(header)
                left = None if left is None else left - step
                following = self._moved(current, current.place + step)
                if following is None:
                    current = None
                    break
                current = following
            if left == 0 and headers:
                yield headers
            if current is None or not _is_fatbin(current.part, current.place):
                return

    def _moved(self, spot: _Spot, place: int) -> _Spot | None:
        """The spot at a place of the same stream: in this part, or in one around where the place must be packed."""
        if place + CONTAINER.size + HEADER.size <= len(spot.part.data):
            return spot._replace(place=place)
        begin, step = spot.packed, place - spot.place
        ratio = spot.ratio or _ratio(spot)
        guess = begin + int(step / ratio)
        if guess > self.source.size:
            return None
        reach = max(_SHORT, min(_PART, (guess - begin) // (_LEARNT if spot.ratio else _GUESSED) + _SHORT))
        for shift in (0, 1, -1, 2, -2):
            following = self._read(guess - reach * 2 // 5 + shift * reach * 2 // 3, reach)
            found = None if following is None else _nearest(following, guess)
            if found is not None and found.packed > begin + (guess - begin) // 2:
                return found._replace(ratio=max(step / max(found.packed - begin, 1), 1.0))
        return None

    def _read(self, at: int, size: int) -> _Spot | None:
        """A part, as long as the budget lasts."""
        at = max(min(at, self.source.size - size), 0)
        part = from_middle(data) if (data := self._packed(at, size)) else None
        if part is None:
            return None
        for place in candidates(part):
            header = header_at(part, place) if part.known(place, place + HEADER.size) else None
            if header is not None:
                entry = entry_of(header, "", 0)
                self.met.add((entry.kind, entry.target))
        return _Spot(part, at)

    def enough(self, payloads: Sequence[Payload]) -> bool:
        """Whether so many modules with kernels were found that no more are looked for: of several places, or all but one."""
        full = sum(not is_without_kernels(payload) for payload in payloads)
        return self.places >= _ENOUGH or (full > 0 and 0 < self.table.modules <= len(payloads) + 1)

    def _packed(self, at: int, size: int) -> bytes:
        if self.left < size:
            return b""
        self.left -= size
        return self.source.peek(at, size)


def _ratio(spot: _Spot) -> float:
    """Unpacked by packed bytes from the place of a spot on, which are of the image that begins there; of all where those are few."""
    packed = spot.part.packed
    before = spot.part.packed_before(spot.place) if packed else 0
    if len(packed) - before >= _ENOUGH_PACKED:
        return max((len(spot.part.data) - spot.place) / (len(packed) - before), 1.0)
    return max(len(spot.part.data) / max(len(packed), 1), 1.0)


def _is_fatbin(part: DeflatePart, at: int) -> bool:
    """Whether the header of a fatbin and of its first entry are at a place."""
    here = part.likely(at, at + CONTAINER.size) and part.data.startswith(STRICT_MAGIC, at)
    return here and header_at(part, at + CONTAINER.size) is not None


def _first(spot: _Spot) -> _Spot | None:
    """The spot at its first fatbin, else at its first entry header."""
    at = -1
    while (at := spot.part.data.find(STRICT_MAGIC, at + 1)) >= 0:
        if _is_fatbin(spot.part, at):
            return spot._replace(place=at)
    place = min((each for each in candidates(spot.part) if header_at(spot.part, each) is not None), default=None)
    return None if place is None else spot._replace(place=place)


def _nearest(spot: _Spot, guess: int) -> _Spot | None:
    """The spot at the fatbin or entry header that is nearest to a place in the packed bytes."""
    share = (guess - spot.at - spot.part.start) / max(len(spot.part.packed), 1)
    middle = int(len(spot.part.data) * share)
    heads = [each for each in candidates(spot.part) if header_at(spot.part, each) is not None]
    heads += [each - CONTAINER.size for each in heads if _is_fatbin(spot.part, each - CONTAINER.size)]
    inner = {each + CONTAINER.size for each in heads if _is_fatbin(spot.part, each)}
    best = min((each for each in heads if each not in inner), key=lambda each: abs(each - middle), default=None)
    return None if best is None else spot._replace(place=best)


def _payload(images: list[ImageEntry], locator: str, index: int) -> Payload:
    return Payload(
        locator=locator,
        vendor=Vendor.NVIDIA,
        kind=ModuleKind.FATBIN,
        section=_FATBINS[0],
        offset=index,
        size=0,
        found_by=("section",),
        images=tuple(images),
        wrapper=Wrapper(1, 0),
    )
