"""CUDA fatbins: walk the entry chain, survive damage, list whatever is whole (reference: CUDA fatbin, container)."""

from __future__ import annotations

import re
import struct

from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.formats import numbers as n
from fatpatch.gpucode.fatbin.entry import HEADER, LOOKAHEAD, Header, Label, is_filler, label_of, plausible, read_concatenated, read_entry
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import ImageEntry

CONTAINER = struct.Struct("<IHHQ")
_MAX_TRIES = 20_000
STRICT_MAGIC = b"\x50\xed\x55\xba\x01\x00\x10\x00"


class Fatbin(NamedTuple):
    """The images of one fatbin and the offset of the first byte behind it.

    ``fillers``: entries that only fill a place, and ``filler_size`` their bytes with headers.
    """

    images: tuple[ImageEntry, ...]
    end: int
    fillers: int = 0
    filler_size: int = 0


def sane(source: Source, offset: int, limit: int) -> bool:
    """Whether the magic at ``offset`` starts a fatbin: strict, for places that only a search has found.

    Real false positives (constants in compilers and debuggers) fail the version, the size or the first entry.
    """
    data = source.peek(offset, CONTAINER.size + HEADER.size)
    if len(data) < CONTAINER.size:
        return False
    magic, version, header_size, size = CONTAINER.unpack_from(data)
    if magic != n.FATBIN_MAGIC or version != n.FATBIN_VERSION or header_size != n.FATBIN_HEADER_SIZE:
        return False
    if size % 8 or size > limit - offset - CONTAINER.size or len(data) < CONTAINER.size + HEADER.size:
        return False
    first = Header._make(HEADER.unpack_from(data, CONTAINER.size))
    return plausible(first) and first.header_size + first.payload_size <= size


def read_fatbin(source: Source, offset: int, limit: int, locator: str, room: int, diagnostics: Diagnostics) -> Fatbin:
    """Read the fatbin at ``offset``, up to ``room`` images; nothing past ``limit`` belongs to it. The caller has seen its magic."""
    start = offset + CONTAINER.size
    head = source.peek(offset, CONTAINER.size + LOOKAHEAD)
    _, version, header_size, size = CONTAINER.unpack_from(head)
    if version != n.FATBIN_VERSION:
        diagnostics.error(locator, offset + 4, f"expected 1, got {version}: the driver refuses it (error 200)", field="container version")
    if header_size != n.FATBIN_HEADER_SIZE:
        diagnostics.error(locator, offset + 6, f"expected 16, got {header_size}", field="container header size")
        if header_size > CONTAINER.size and _entry_at(source, offset + header_size, limit) and not _entry_at(source, start, limit):
            start = offset + header_size
            head = b""
    if start + size > limit:
        message = f"expected at most {max(limit - start, 0):#x}, the bytes there are, got {size:#x}"
        diagnostics.error(locator, offset + 8, message, field="payload size")
    chain = _Chain(source, start, min(start + size, limit), limit, offset, locator, room, diagnostics)
    return chain.read(head[CONTAINER.size :])


def _entry_at(source: Source, at: int, limit: int) -> Header | None:
    """The header at ``at`` if a whole entry surely starts there: known kind or version, both lengths inside ``limit``."""
    data = source.peek(at, HEADER.size)
    if len(data) < HEADER.size or data[2:4] != b"\x01\x01":
        return None
    header = Header._make(HEADER.unpack(data))
    whole = plausible(header) and at + header.header_size + header.payload_size <= limit
    return header if whole else None


class _Chain:
    """One pass over the entries of a container."""

    def __init__(
        self, source: Source, start: int, declared: int, limit: int, container: int, locator: str, room: int, diagnostics: Diagnostics
    ) -> None:
        self.source, self.limit, self.container = source, limit, container
        self.locator, self.diagnostics = locator, diagnostics
        self.at, self.declared, self.room = start, declared, room
        self.number = 0
        self.fillers = self.filler_size = 0
        self.images: list[ImageEntry] = []
        self.seen: dict[str, int] = {}

    def read(self, head: bytes) -> Fatbin:
        """Read to the end; ``head`` holds bytes of the first entry that were read along with the container's header."""
        while self.at < self.declared:
            if len(self.images) + self.fillers > self.room:  # told by whoever set the limit
                self.at = self.declared
                break
            if not self._step(head) and not self._resynchronise():
                return self._result()
            head = b""
        if self.at < self.limit:
            self._read_on()
        return self._result()

    def _result(self) -> Fatbin:
        return Fatbin(tuple(self.images), self.at, self.fillers, self.filler_size)

    def _step(self, data: bytes = b"") -> bool:
        """Read the entry here and move behind it; False, with a diagnostic, when it cannot be delimited."""
        at, limit = self.at, self.limit
        data = data or self.source.peek(at, LOOKAHEAD)
        if len(data) < HEADER.size or at + HEADER.size > limit:
            self.diagnostics.error(self._entry(), at, f"expected a header of 0x40 bytes, {limit - at:#x} left", field="entry header")
            return False
        header = tuple.__new__(Header, HEADER.unpack_from(data))
        if not plausible(header):
            self._complain(header, data, self._entry())
            return False
        kind, version, header_size, payload_size, _, _, minor, major, arch, _, _, flags, _, _ = header
        end = at + header_size + payload_size
        if end > limit:
            room = limit - at - header_size
            message = f"expected at most {max(room, 0):#x}, the bytes there are, got {payload_size:#x}"
            self.diagnostics.error(self._entry(), at + 8, message, field="payload size")
            return False
        if end > self.declared:
            message = f"the container ends at {self.declared:#x}, inside this entry, which ends at {end:#x}"
            self.diagnostics.error(self._entry(), self.container + 8, message, field="container payload size")
        if kind == n.KIND_FILLER and is_filler(header):
            self.fillers += 1
            self.filler_size += header_size + payload_size
        else:
            label = label_of(kind, version, minor, major, arch, flags)
            if header_size + n.ENTRY_HEADER_SIZE > len(data):
                data = self.source.peek(at, header_size + n.ENTRY_HEADER_SIZE)
            self._keep(header, label, data)
        self.at = end
        self.number += 1
        return True

    def _keep(self, header: Header, label: Label, data: bytes) -> None:
        target = label.target
        seen = self.seen[target] = self.seen.get(target, 0) + 1
        locator = f"{self.locator}!{target}" if seen == 1 else f"{self.locator}!{target}#{seen}"
        image = read_entry(header, label, data, self.at, locator, self.diagnostics)
        if header.kind == n.KIND_CONCATENATED:
            self.images.extend(read_concatenated(image, header, data, self.diagnostics))
        else:
            self.images.append(image)

    def _entry(self) -> str:
        return f"{self.locator}!entry[{self.number}]"

    def _complain(self, header: Header, data: bytes, where: str) -> None:
        if not any(data[: HEADER.size]):
            message = "zero bytes counted by the container's payload size: a driver hangs on them"
            self.diagnostics.error(where, self.at, message, field="entry header")
        elif data[:4] == n.FATBIN_MAGIC_BYTES:
            message = f"the container claims to reach {self.declared:#x}, but the next fatbin starts here"
            self.diagnostics.error(where, self.container + 8, message, field="container payload size")
        elif header.kind in (n.KIND_PTX, n.KIND_ELF, n.KIND_NVVM) or header.version == n.ENTRY_VERSION:
            message = f"expected a multiple of 8 from 0x40 on, got {header.header_size:#x}"
            self.diagnostics.error(where, self.at + 4, message, field="header size")
        else:
            self.diagnostics.error(where, self.at, f"expected an entry header, got {data[:8].hex()}", field="entry header")

    def _resynchronise(self) -> bool:
        """Move to the next place in this container where an entry surely starts; else to its end, or the next fatbin."""
        start = at = self.at + 8
        landmark = re.compile(rb"(?:[\x01\x02\x04\x08\x10\x20\x40\x80]\x00|\x00\x01)\x01\x01|" + re.escape(STRICT_MAGIC), re.DOTALL)
        tries = 0
        while tries < _MAX_TRIES and (chunk := self.source.peek(at, min(1 << 16, self.declared - at))):
            for found in landmark.finditer(chunk):
                place = at + found.start()
                if (place - start) % 8 or tries > _MAX_TRIES:
                    continue
                tries += 1
                if found[0] == STRICT_MAGIC and sane(self.source, place, self.limit):
                    self.at = place
                    return False
                header = _entry_at(self.source, place, self.limit)
                if header is not None and self._continues(place, header):
                    self.diagnostics.add("note", self.locator, self.at, f"{place - self.at:#x} bytes skipped to the next whole entry")
                    self.at = place
                    self.number += 1
                    return True
            at += len(chunk)
        self.at = self.declared
        return False

    def _continues(self, at: int, header: Header) -> bool:
        """Whether what follows the entry at ``at`` is another entry, another fatbin, or the end."""
        end = at + header.header_size + header.payload_size
        return end >= self.declared or _entry_at(self.source, end, self.limit) is not None

    def _read_on(self) -> None:
        """Entries behind the declared end: the container's size is too small, what is whole is listed all the same."""
        noted = False
        while self.at < self.limit and _entry_at(self.source, self.at, self.limit):
            if not noted:
                message = f"the container ends at {self.at:#x}, but an entry follows there"
                self.diagnostics.error(self.locator, self.container + 8, message, field="container payload size")
                noted = True
            self.declared = self.limit
            if not self._step():
                return
