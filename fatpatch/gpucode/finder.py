"""What the searches of one container share: what was found, in which order, by which evidence, and the chains of fatbins."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from fatpatch.base.locator import join
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.codec import IMAGE_LIMIT
from fatpatch.gpucode.fatbin import read as fatbin
from fatpatch.gpucode.fatbin.wrapper import Pointer, read_wrappers
from fatpatch.gpucode.frames import StreamBudget
from fatpatch.gpucode.magics import Magics
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.kinds import ModuleKind, Vendor
from fatpatch.model.tree import Container, Payload, Wrapper

MAX_FALSE_HITS = 20_000
ELF_HEAD, PTX_WORD = b"\x7fELF\x02\x01\x01", b".version "
"""How a 64-bit object (of the one version of ELF that there is), and a PTX text behind its comments, begins."""
BARE_MAGICS = (ELF_HEAD, PTX_WORD)
MAGICS = (fatbin.STRICT_MAGIC, *BARE_MAGICS, n.BUNDLE_MAGIC, n.CCOB_MAGIC, n.OFFLOAD_BINARY_MAGIC)
_NEAR = 40


class Range(NamedTuple):
    """Bytes to search, and the section they belong to."""

    start: int
    end: int
    section: str | None


class Finder:
    """Collects the payloads of one container, in file order; ``pointers`` are the wrappers that lead to them."""

    def __init__(self, source: Source, locator: str, limit: int, diagnostics: Diagnostics, image_limit: int = IMAGE_LIMIT) -> None:
        self.source, self.locator, self.diagnostics = source, locator, diagnostics
        self.found: dict[int, Payload] = {}
        self.order: list[int] = []
        self.limit = self.room = limit
        self.image_limit = image_limit
        self.full = False
        self.names: dict[tuple[str | None, str], str] = {}
        self.counts: dict[str, int] = {}
        self.pointers: dict[int, Pointer] = {}
        self.targets: list[int] = []
        self.budget = StreamBudget()
        self.magics = Magics(source, MAGICS, b"", self.budget)

    @property
    def by_toolkit(self) -> bool:
        """Whether NVIDIA's tools put the fatbins there: they align each to 8."""
        return bool(self.magics.aligned)

    def follow(self, container: Container) -> None:
        """Note what the wrappers point to; a wrapper that points nowhere is a diagnostic."""
        for pointer in read_wrappers(self.source, container):
            if pointer.target is not None:
                self.pointers.setdefault(pointer.target, pointer)
            elif pointer.magic == n.WRAPPER_MAGIC and not container.relocatable:
                where = pointer.wrapper.offset + 8
                self.diagnostics.warning(self.locator, where, "the wrapper points to no section of the file", field="fatbin pointer")
        self.targets = sorted(self.pointers)

    def fatbin_chain(self, part: Range, evidence: str) -> None:
        """Fatbins back to back, with zero gaps; anything else is a diagnostic and the search goes on behind it."""
        at = part.start
        while at + fatbin.CONTAINER.size <= part.end and not self.full:
            head = self.source.peek(at, 8)
            if head[:4] == n.FATBIN_MAGIC_BYTES:
                at = self.add_fatbin(at, part, evidence)
            elif not any(head):
                at = self.skip_zeros(at, part.end)
            else:
                following = self.source.find(fatbin.STRICT_MAGIC, at, part.end)
                skipped = (part.end if following < 0 else following) - at
                locator = self.locator if part.section is None else join(self.locator, part.section)
                message = f"expected the magic 50ed55ba or zero bytes, got {head.hex()}: {skipped:#x} bytes skipped"
                self.diagnostics.error(locator, at, message, field="fatbin magic")
                at += skipped

    def search(self, part: Range) -> None:
        """Fatbins that a wrapper points to, and those that only their magic shows; the latter must pass the strict test."""
        targets = self.targets[bisect.bisect_left(self.targets, part.start) : bisect.bisect_left(self.targets, part.end)]
        at, false_hits = part.start, 0
        while at + fatbin.CONTAINER.size <= part.end and false_hits < MAX_FALSE_HITS and not self.full:
            following = bisect.bisect_left(targets, at)
            stop = targets[following] if following < len(targets) else part.end
            near = self.source.peek(at, _NEAR).find(fatbin.STRICT_MAGIC)
            hit = at + near if near >= 0 else self.magics.find(fatbin.STRICT_MAGIC, at, min(stop + 7, part.end))
            at = stop if hit < 0 else min(hit, stop)
            if at >= part.end:
                break
            evidence = self._proof(at, part.end)
            false_hits += evidence is None
            at = at + 8 if evidence is None else self.add_fatbin(at, part, evidence)
        self.give_up(false_hits, part)

    def _proof(self, at: int, end: int) -> str | None:
        """What shows that a fatbin starts at ``at``: the strict test, or a wrapper and the magic; None when nothing does."""
        if fatbin.sane(self.source, at, end):
            return "magic"
        pointer = self.pointers.get(at)
        named = pointer is not None and pointer.magic == n.WRAPPER_MAGIC
        return "wrapper" if named and self.source.peek(at, 4) == n.FATBIN_MAGIC_BYTES else None

    def gaps(self, part: Range) -> Iterator[tuple[int, int]]:
        """The range without the payloads in it."""
        at = part.start
        for offset in self.order[max(bisect.bisect_right(self.order, part.start) - 1, 0) : bisect.bisect_left(self.order, part.end)]:
            payload = self.found[offset]
            if offset + payload.size <= at:
                continue
            if at < offset:
                yield at, offset
            at = offset + payload.size
        if at < part.end:
            yield at, part.end

    def payloads(self) -> tuple[Payload, ...]:
        """Everything found, in file order, each with its wrapper."""
        return tuple(self.found[offset] for offset in self.order)

    def evidence_for(self, at: int, evidence: str) -> tuple[tuple[str, ...], Wrapper | None]:
        """How the payload at ``at`` was found, and the wrapper that names it."""
        pointer = self.pointers.get(at)
        if pointer is None:
            return (evidence,), None
        return ("wrapper",) if evidence == "wrapper" else (evidence, "wrapper"), pointer.wrapper

    def add_fatbin(self, at: int, part: Range, evidence: str) -> int:
        """Read the fatbin at ``at``; the offset of the first byte behind it."""
        known = self.found.get(at)
        if known is not None:
            return known.offset + known.size
        locator = self.name_for(part.section, "fatbin")
        found_by, wrapper = self.evidence_for(at, evidence)
        read = fatbin.read_fatbin(self.source, at, part.end, locator, max(self.room, 0), self.diagnostics)
        self.keep(Payload(  # in the order of its fields: by name it takes three times as long
            locator, Vendor.NVIDIA, ModuleKind.FATBIN, part.section, at, read.end - at,
            found_by, read.images, wrapper, None, None, read.fillers, read.filler_size,
        ))  # fmt: skip
        return read.end

    def keep(self, payload: Payload) -> None:
        """Enter a payload; past the limit nothing more is searched."""
        if not self.order or payload.offset > self.order[-1]:
            self.order.append(payload.offset)
        elif payload.offset not in self.found:
            bisect.insort(self.order, payload.offset)
        self.found[payload.offset] = payload
        self.room -= max(len(payload.images) + payload.fillers, 1)
        if self.room < 0 and not self.full:
            self.full = True
            self.diagnostics.error(payload.locator, payload.offset, f"more than {self.limit} images and payloads: the rest is left out")

    def give_up(self, false_hits: int, part: Range) -> None:
        """Say that the rest of a range is not searched, when too many magics in it were none."""
        if false_hits >= MAX_FALSE_HITS:
            message = f"{false_hits} magics with nothing sound behind them: the rest of the range is not searched"
            self.diagnostics.error(self.locator, part.start, message, field="magic")

    def skip_zeros(self, at: int, end: int, step: int = 8) -> int:
        """The next multiple of ``step`` bytes from ``at`` on that holds a byte other than zero; or ``end``."""
        start = at
        while at < end:
            data = self.source.peek(at, min(1 << 16, end - at))
            rest = data.lstrip(b"\0")
            at += len(data) - len(rest)
            if not rest and len(data) == 1 << 16:
                at = min(self.source.next_data(at), end)
            if rest or not data:
                return start + (at - start) // step * step if rest else end
        return end

    def name_for(self, section: str | None, kind: str) -> str:
        """The locator of the next payload of a kind in a section."""
        before = self.names.get((section, kind))
        if before is None:
            before = self.names[section, kind] = f"{self.locator if section is None else join(self.locator, section)}!{kind}"
        number = self.counts[before] = self.counts.get(before, -1) + 1
        return f"{before}[{number}]"
