"""Finds payloads in a container and says which evidence led to each: section, wrapper, magic, or the file itself.

No single evidence is enough. Real fatbins sit in sections of other names (.rodata, .ldata, .cask_resource) and without any
wrapper; the bare magic occurs in compilers and debuggers as a constant.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

from fatpatch.containers.zip import first_local_header
from fatpatch.diagnostics import Diagnostics
from fatpatch.formats import numbers as n
from fatpatch.locator import join
from fatpatch.model import Container, Image, Payload, Wrapper
from fatpatch.payloads import fatbin, offload_bundle
from fatpatch.payloads.wrapper import Pointer, read_wrappers
from fatpatch.source import Source

FATBIN_SECTIONS = frozenset({".nv_fatbin", "__nv_relfatbin", ".nv_fatb", "__nv_rel"})
BUNDLE_SECTIONS = frozenset({".hip_fatbin", ".hip_fat"})
RDC_SECTION = n.BUNDLE_MAGIC.decode()
_BARREN = (
    ".debug",
    ".zdebug",
    ".rel.",
    ".rela",
    ".eh_frame",
    ".gcc_except_table",
    ".symtab",
    ".strtab",
    ".dynsym",
    ".dynstr",
    ".gnu",
    ".pdata",
)
_MAX_FALSE_HITS = 20_000
_NEAR = 40
_SEARCHABLE = frozenset({"elf", "pe", "ape", "macho", "raw", "fatbin", "bundle"})


class Range(NamedTuple):
    """Bytes to search, and the section they belong to."""

    start: int
    end: int
    section: str | None


def find_payloads(source: Source, container: Container, locator: str, limit: int, diagnostics: Diagnostics) -> tuple[Payload, ...]:
    """All payloads of a container in file order, up to ``limit`` images; its members are not looked into."""
    if container.kind not in _SEARCHABLE:
        return ()
    finder = _Finder(source, locator, limit, diagnostics)
    finder.follow(container)
    if container.kind in ("fatbin", "bundle"):
        evidence = "file"
        named = [Range(0, source.size, None)]
    else:
        evidence = "section"
        named = list(_named(container))
    # NVIDIA's tools align every fatbin to 8; files embedded as they are (include_bytes) lie anywhere.
    finder.by_toolkit = any(part.section in FATBIN_SECTIONS for part in named)
    for part in named:
        if container.kind == "fatbin" or part.section in FATBIN_SECTIONS:
            finder.fatbin_chain(part, evidence)
        elif container.kind == "bundle" or part.section in BUNDLE_SECTIONS:
            finder.bundle_chain(part, evidence)
        elif part.section is not None and part.section.startswith(RDC_SECTION):
            finder.relocatable_object(part)
    if container.kind not in ("fatbin", "bundle"):
        for part in _unnamed(source, container):
            finder.search(part)
            if not container.sections:
                finder.bundle_chain(part, "magic")
        finder.check_pointers()
    return finder.payloads()


def _named(container: Container) -> Iterator[Range]:
    """The sections whose name says what they hold, in file order, none of them over another."""
    at = 0
    for section in sorted(container.sections, key=lambda section: section.offset):
        start, end = max(section.offset, at), section.offset + section.size
        if _known(section.name) and start < end:
            at = end
            yield Range(start, end, section.name)


def _known(name: str) -> bool:
    return name in FATBIN_SECTIONS or name in BUNDLE_SECTIONS or name.startswith(RDC_SECTION)


def _unnamed(source: Source, container: Container) -> Iterator[Range]:
    """The ranges that no section name announces: data sections, and what lies outside sections and members."""
    taken = [(m.header_offset, m.offset + m.stored_size) for m in container.members]
    at = 0
    for section in sorted(container.sections, key=lambda section: section.offset):
        start, end = max(section.offset, at), section.offset + section.size
        taken.append((section.offset, end))
        if not _known(section.name) and not section.name.startswith(_BARREN) and not section.executable and start < end:
            at = end
            yield Range(start, end, section.name)
    at = 0
    reach = source.size if not container.members else first_local_header(source, min(member.header_offset for member in container.members))
    for begin, end in [*sorted(taken), (reach, reach)]:
        start = min(begin, reach)  # behind it lie members, also replaced ones that no directory names any more, and directories
        if start - at > n.ENTRY_HEADER_SIZE:
            yield Range(at, start, None)
        at = max(at, end)


class _Finder:
    """Collects the payloads of one container."""

    def __init__(self, source: Source, locator: str, limit: int, diagnostics: Diagnostics) -> None:
        self.source, self.locator, self.diagnostics = source, locator, diagnostics
        self.found: dict[int, Payload] = {}
        self.order: list[int] = []
        self.limit = self.room = limit
        self.full = False
        self.counts: dict[str, int] = {}
        self.pointers: dict[int, Pointer] = {}
        self.targets: list[int] = []
        self.by_toolkit = False

    def follow(self, container: Container) -> None:
        """Note what the wrappers point to; a wrapper that points nowhere is a diagnostic."""
        for pointer in read_wrappers(self.source, container):
            if pointer.target is not None:
                self.pointers.setdefault(pointer.target, pointer)
            elif pointer.magic == n.WRAPPER_MAGIC and not container.relocatable:
                where = pointer.wrapper.offset + 8
                self.diagnostics.warning(self.locator, where, "the wrapper points to no section of the file", field="fatbin pointer")
        self.targets = sorted(self.pointers)

    def check_pointers(self) -> None:
        """Each CUDA wrapper must point to a fatbin that was found, by whatever evidence."""
        for target, pointer in self.pointers.items():
            if pointer.magic == n.WRAPPER_MAGIC and target not in self.found:
                got = self.source.peek(target, 4).hex()
                message = f"expected a fatbin (50ed55ba) at {target:#x}, got {got or 'nothing'}"
                self.diagnostics.error(self.locator, pointer.wrapper.offset + 8, message, field="fatbin pointer")

    def fatbin_chain(self, part: Range, evidence: str) -> None:
        """Fatbins back to back, with zero gaps; anything else is a diagnostic and the search goes on behind it."""
        at = part.start
        while at + fatbin.CONTAINER.size <= part.end and not self.full:
            head = self.source.peek(at, 8)
            if head[:4] == n.FATBIN_MAGIC_BYTES:
                at = self._fatbin(at, part, evidence)
            elif not any(head):
                at = self._skip_zeros(at, part.end)
            else:
                following = self.source.find(fatbin.STRICT_MAGIC, at, part.end)
                skipped = (part.end if following < 0 else following) - at
                locator = self.locator if part.section is None else join(self.locator, part.section)
                message = f"expected the magic 50ed55ba or zero bytes, got {head.hex()}: {skipped:#x} bytes skipped"
                self.diagnostics.error(locator, at, message, field="fatbin magic")
                at += skipped

    def bundle_chain(self, part: Range, evidence: str) -> None:
        """Bundles, each stepped over by its own size; the next one is searched only behind the last."""
        for magic in (n.BUNDLE_MAGIC, n.CCOB_MAGIC):
            at, false_hits = part.start, 0
            while (at := self.source.find(magic, at, part.end)) >= 0 and false_hits < _MAX_FALSE_HITS and not self.full:
                before = bisect.bisect_right(self.order, at) - 1
                around = self.found[self.order[before]] if before >= 0 else None
                if around is not None and at < around.offset + around.size:
                    at = around.offset + around.size
                elif offload_bundle.sane(self.source, at, part.end):
                    at = self._bundle(at, part, evidence)
                else:
                    if evidence != "magic":
                        self.diagnostics.error(self.locator, at, "a bundle magic without a sound header behind it", field="bundle header")
                    at += len(magic)
                    false_hits += 1
            self._give_up(false_hits, part)

    def relocatable_object(self, part: Range) -> None:
        """A section that is one entry of an -fgpu-rdc object: its name is the entry id."""
        assert part.section is not None
        identity = part.section[len(RDC_SECTION) :]
        kind, target, vendor = offload_bundle.classify(identity, "amd")
        if kind == "host":
            return
        locator = join(self.locator, part.section)
        size = part.end - part.start
        image = Image(
            locator=join(locator, target),
            kind=kind,
            target=target,
            code_version=None,
            compression="none",
            stored_size=size,
            size=size,
            offset=part.start,
            data_offset=part.start,
            stored_bytes=size,
            identifier=identity,
        )
        self._keep(Payload(
            locator=locator, vendor=vendor, kind="offload_section", section=part.section, offset=part.start, size=size,
            found_by=("section",), images=(image,),
        ))  # fmt: skip

    def search(self, part: Range) -> None:
        """Fatbins that a wrapper points to, and those that only their magic shows; the latter must pass the strict test."""
        targets = self.targets[bisect.bisect_left(self.targets, part.start) : bisect.bisect_left(self.targets, part.end)]
        at, false_hits = part.start, 0
        find = self.source.find_aligned if self.by_toolkit else self.source.find
        while at + fatbin.CONTAINER.size <= part.end and false_hits < _MAX_FALSE_HITS and not self.full:
            following = bisect.bisect_left(targets, at)
            stop = targets[following] if following < len(targets) else part.end
            near = self.source.peek(at, _NEAR).find(fatbin.STRICT_MAGIC)
            hit = at + near if near >= 0 else find(fatbin.STRICT_MAGIC, at, min(stop + 7, part.end))
            at = stop if hit < 0 else min(hit, stop)
            if at >= part.end:
                break
            evidence = self._proof(at, part.end)
            false_hits += evidence is None
            at = at + 8 if evidence is None else self._fatbin(at, part, evidence)
        self._give_up(false_hits, part)

    def _proof(self, at: int, end: int) -> str | None:
        """What shows that a fatbin starts at ``at``: the strict test, or a wrapper and the magic; None when nothing does."""
        if fatbin.sane(self.source, at, end):
            return "magic"
        pointer = self.pointers.get(at)
        named = pointer is not None and pointer.magic == n.WRAPPER_MAGIC
        return "wrapper" if named and self.source.peek(at, 4) == n.FATBIN_MAGIC_BYTES else None

    def payloads(self) -> tuple[Payload, ...]:
        """Everything found, in file order, each with its wrapper."""
        return tuple(self.found[offset] for offset in self.order)

    def _evidence(self, at: int, evidence: str) -> tuple[tuple[str, ...], Wrapper | None]:
        """How the payload at ``at`` was found, and the wrapper that names it."""
        pointer = self.pointers.get(at)
        if pointer is None:
            return (evidence,), None
        return ("wrapper",) if evidence == "wrapper" else (evidence, "wrapper"), pointer.wrapper

    def _fatbin(self, at: int, part: Range, evidence: str) -> int:
        known = self.found.get(at)
        if known is not None:
            return known.offset + known.size
        locator = self._name(part.section, "fatbin")
        found_by, wrapper = self._evidence(at, evidence)
        read = fatbin.read_fatbin(self.source, at, part.end, locator, max(self.room, 0), self.diagnostics)
        self._keep(Payload(
            locator=locator, vendor="nvidia", kind="fatbin", section=part.section, offset=at, size=read.end - at,
            found_by=found_by, images=read.images, wrapper=wrapper,
        ))  # fmt: skip
        return read.end

    def _bundle(self, at: int, part: Range, evidence: str) -> int:
        locator = self._name(part.section, "bundle")
        read = offload_bundle.read_bundle(self.source, at, part.end, locator, self.diagnostics)
        if read is None:
            return at + len(n.CCOB_MAGIC)
        found_by, wrapper = self._evidence(at, evidence)
        self._keep(Payload(
            locator=locator, vendor=read.vendor, kind="offload_bundle", section=part.section, offset=at, size=read.end - at,
            found_by=found_by, images=read.images, wrapper=wrapper, format=read.format,
        ))  # fmt: skip
        return max(read.end, at + len(n.CCOB_MAGIC))

    def _keep(self, payload: Payload) -> None:
        if payload.offset not in self.found:
            bisect.insort(self.order, payload.offset)
        self.found[payload.offset] = payload
        self.room -= max(len(payload.images), 1)
        if self.room < 0 and not self.full:
            self.full = True
            self.diagnostics.error(payload.locator, payload.offset, f"more than {self.limit} images and payloads: the rest is left out")

    def _give_up(self, false_hits: int, part: Range) -> None:
        if false_hits >= _MAX_FALSE_HITS:
            message = f"{false_hits} magics with nothing sound behind them: the rest of the range is not searched"
            self.diagnostics.error(self.locator, part.start, message, field="magic")

    def _skip_zeros(self, at: int, end: int) -> int:
        """The next multiple of 8 bytes from ``at`` on that holds a byte other than zero; or ``end``."""
        start = at
        while at < end:
            data = self.source.peek(at, min(1 << 16, end - at))
            rest = data.lstrip(b"\0")
            at += len(data) - len(rest)
            if rest or not data:
                return start + (at - start) // 8 * 8 if rest else end
        return end

    def _name(self, section: str | None, kind: str) -> str:
        parent = self.locator if section is None else join(self.locator, section)
        key = f"{parent}!{kind}"
        number = self.counts[key] = self.counts.get(key, -1) + 1
        return f"{key}[{number}]"
