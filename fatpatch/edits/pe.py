"""Payloads that no longer fit their place in a PE file: in a new section, or in the last one grown (reference: graft, section E)."""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from fatpatch.containers.pe import FILE_HEADER, SECTION
from fatpatch.edits.code_references import code_references
from fatpatch.edits.host import IN_PLACE, HostEdit, HostFile, Options, split_in_place, vacated
from fatpatch.edits.new_payload import NewPayload, common_alignment, room_for
from fatpatch.edits.overlay import Overlay, Write, padding
from fatpatch.errors import EditError, UnsupportedError
from fatpatch.formats import numbers as n
from fatpatch.payloads.wrapper import read_wrappers
from fatpatch.source import Source

_NAMES = {True: b".nv_fatb", False: b".hip_fat"}
_PE32_PLUS = 0x20B
_READ_ONLY_DATA = 0x40000040
_DISCARDABLE = 0x02000000
_EXECUTABLE = 0x20000000
_MAX_IMAGE = 0x7FFFFFFF
_FULL32 = 0xFFFFFFFF
_MAX_ALIGNMENT, _MAX_BLANK = 1 << 24, 1 << 28
_SECURITY, _RELOCATIONS = 4, 5
_DIR64 = 10
_BLOCK = struct.Struct("<II")
_MAX_RELOCATIONS = 64 << 20
_WORD, _LONG, _HALF = struct.Struct("<Q"), struct.Struct("<I"), struct.Struct("<H")
# Offsets in the PE32+ optional header (PE/COFF specification, optional header)
INITIALIZED_DATA = 8
_BASE, _SECTION_ALIGNMENT, _FILE_ALIGNMENT, _IMAGE_SIZE, _HEADERS_SIZE, _CHECKSUM, _DIRECTORY_COUNT, _DIRECTORIES = (
    24, 32, 36, 56, 60, 64, 108, 112,
)  # fmt: skip


class PeSection(NamedTuple):
    """A section header; field names follow formats/pe.py."""

    name: bytes
    virtual_size: int
    address: int
    raw_size: int
    offset: int
    relocations: int
    line_numbers: int
    relocation_count: int
    line_number_count: int
    flags: int

    @property
    def end(self) -> int:
        """The first address behind it in memory, where Windows wants the next section, rounded up."""
        return self.address + (self.virtual_size or self.raw_size)


class PeFile:
    """The headers of a PE32+ file; UnsupportedError when it is of another kind."""

    def __init__(self, source: Source, locator: str) -> None:
        self.source, self.locator = source, locator
        self.file_header = int.from_bytes(source.read(0x3C, 4), "little") + 4
        _, count, _, _, _, optional_size, _ = FILE_HEADER.unpack(source.read(self.file_header, FILE_HEADER.size))
        self.optional = self.file_header + FILE_HEADER.size
        if optional_size < _DIRECTORIES or self.half(0) != _PE32_PLUS:
            raise UnsupportedError("only 64-bit PE files (PE32+) can be edited", locator=locator)
        self.table = self.optional + optional_size
        self.sections = [PeSection._make(row) for row in SECTION.iter_unpack(source.read(self.table, count * SECTION.size))]
        if not self.sections:
            raise UnsupportedError("has no sections", locator=locator)
        self._by_address = sorted(self.sections, key=lambda section: section.address)
        self._starts = [section.address for section in self._by_address]
        self.base = _WORD.unpack(source.read(self.optional + _BASE, 8))[0]
        self.section_alignment = self.long(_SECTION_ALIGNMENT) or 0x1000
        self.file_alignment = self.long(_FILE_ALIGNMENT) or 0x200
        powers = all(each & each - 1 == 0 for each in (self.section_alignment, self.file_alignment))
        if not powers or not 0x200 <= self.file_alignment <= 0x10000 or not 0x1000 <= self.section_alignment <= _MAX_ALIGNMENT:
            raise UnsupportedError("its section or file alignment is not one of a DLL or program", locator=locator)

    def half(self, at: int) -> int:
        """A 16-bit field of the optional header."""
        value: int = _HALF.unpack(self.source.read(self.optional + at, 2))[0]
        return value

    def long(self, at: int) -> int:
        """A 32-bit field of the optional header."""
        value: int = _LONG.unpack(self.source.read(self.optional + at, 4))[0]
        return value

    def put(self, at: int, value: int) -> Write:
        """The write of a 32-bit field of the optional header."""
        self.refuse_wide(value)
        return Write.of(self.optional + at, _LONG.pack(value))

    def refuse_wide(self, *values: int) -> None:
        """EditError when a number does not fit its 32 bits any more, as in a file with absurd sizes."""
        if max(values) > _FULL32:
            raise EditError(f"would need the number {max(values):#x} in a field of 32 bits", locator=self.locator)

    def row(self, index: int, section: PeSection) -> Write:
        """The write of a section header."""
        self.refuse_wide(*section[1:])
        return Write.of(self.table + index * SECTION.size, SECTION.pack(*section))

    def signature(self) -> tuple[int, int]:
        """File offset and size of the Authenticode table; (0, 0) when there is none."""
        return self.directory(_SECURITY)

    def directory(self, index: int) -> tuple[int, int]:
        """The two numbers of a data directory: address (a file offset for the signature) and size."""
        at = _DIRECTORIES + index * 8
        if self.long(_DIRECTORY_COUNT) <= index or self.optional + at + 8 > self.table:
            return 0, 0
        return self.long(at), self.long(at + 4)

    @property
    def image_size(self) -> int:
        """SizeOfImage."""
        return self.long(_IMAGE_SIZE)

    def address_of(self, offset: int) -> int:
        """Where the byte at a file offset is loaded, from the image base on."""
        for section in self.sections:
            if section.offset <= offset < section.offset + section.raw_size:
                return section.address + offset - section.offset
        raise EditError("lies in no section", locator=self.locator, offset=offset)

    def offset_of(self, address: int) -> int | None:
        """Where the byte at an address (from the image base on) is in the file; None when it is nowhere."""
        section = self._by_address[max(bisect.bisect_right(self._starts, address) - 1, 0)]
        inside = section.address <= address < section.address + min(section.raw_size, section.virtual_size or section.raw_size)
        return section.offset + address - section.address if inside else None

    def relocated(self) -> Iterator[int]:
        """The addresses of all 64-bit pointers that the base relocations name."""
        address, size = self.directory(_RELOCATIONS)
        start = self.offset_of(address) if size else None
        data = b"" if start is None else self.source.peek(start, min(size, _MAX_RELOCATIONS))
        at = 0
        while at + _BLOCK.size <= len(data):
            page, length = _BLOCK.unpack_from(data, at)
            if length < _BLOCK.size:
                return
            block = data[at + _BLOCK.size : at + length]
            for (entry,) in _HALF.iter_unpack(block[: len(block) // 2 * 2]):
                if entry >> 12 == _DIR64:
                    yield page + (entry & 0xFFF)
            at += length

    def has_room(self) -> bool:
        """Whether another section header fits behind the table, over zeros, before the first section's bytes."""
        end = self.table + (len(self.sections) + 1) * SECTION.size
        first = min((section.offset for section in self.sections if section.offset), default=0)
        return end <= min(self.long(_HEADERS_SIZE), first) and not any(self.source.read(end - SECTION.size, SECTION.size))


def edit_pe(host: HostFile, renewed: Sequence[NewPayload], options: Options) -> HostEdit:
    """Put new payloads into a PE file: in place where they fit, else in one new section."""
    if options.compact and (edit := _compact(host, renewed, options)) is not None:
        return edit
    pe = PeFile(host.source, host.locator)
    writes, moved = split_in_place(host, renewed)
    tactics = {new.payload.locator: IN_PLACE for new in renewed if new not in moved}
    kept, signed, notes = without_signature(pe, options)
    writes += signed
    tail: list[Source] = []
    offsets: dict[int, int] = {}
    if moved:
        alignment = common_alignment(moved)
        size = sum(room_for(new, alignment) for new in moved)
        name = _section_name(moved, host.locator)
        placed = _new_section(pe, size, kept, name) if pe.has_room() else _grown_section(pe, size, kept, alignment)
        start, address, changes, tactic = placed
        writes += changes
        tail.append(Source.zeros(start - kept))
        addresses = {}
        offset = start
        for new in moved:
            addresses[new.payload.offset] = pe.base + address
            offsets[new.payload.offset] = offset
            tail += [new.source(), padding(new.size, alignment)]
            offset += room_for(new, alignment)
            address += room_for(new, alignment)
            tactics[new.payload.locator] = tactic
        tail.append(padding(size, pe.file_alignment))
        writes += wrappers_led(host, pe, addresses) + vacated(moved)
    return HostEdit(sealed(pe, Overlay.of(host.source, writes, tail, kept)), tactics, offsets, tuple(notes))


def sealed(pe: PeFile, overlay: Overlay) -> Overlay:
    """The edited file with its checksum made right, where it states one."""
    if not pe.long(_CHECKSUM):
        return overlay
    at = pe.optional + _CHECKSUM
    right = Write.of(at, _LONG.pack(checksum(overlay.source(), at)))
    return Overlay.of(overlay.base, [*overlay.writes, right], overlay.tail, overlay.kept)


def _compact(host: HostFile, renewed: Sequence[NewPayload], options: Options) -> HostEdit | None:
    from fatpatch.edits.compact_pe import compact_pe

    return compact_pe(host, renewed, options)


def _section_name(moved: Sequence[NewPayload], locator: str) -> bytes:
    """What the linker would call the section: readers go by the name."""
    names = {_NAMES[new.payload.vendor == "nvidia"] for new in moved}
    if len(names) > 1:
        hint = "graft the images of one maker, then those of the other"
        raise UnsupportedError("CUDA and AMD code cannot be put into one section", locator=locator, hint=hint)
    return names.pop()


def without_signature(pe: PeFile, options: Options) -> tuple[int, list[Write], list[str]]:
    """Bytes to keep, the writes that drop the Authenticode table, and what to say; EditError without leave to drop it."""
    offset, size = pe.signature()
    if not offset:
        return pe.source.size, [], []
    if not options.drop_signature:
        hint = "--drop-signature removes the signature; sign the result again if your users check it"
        raise EditError("carries an Authenticode signature, which any change makes invalid", locator=pe.locator, offset=offset, hint=hint)
    if not max(section.offset + section.raw_size for section in pe.sections) <= offset <= pe.source.size:
        raise EditError("its signature does not lie behind its sections", locator=pe.locator, offset=offset)
    at = pe.optional + _DIRECTORIES + _SECURITY * 8
    end = offset + size + -(offset + size) % 8
    kept = offset if end >= pe.source.size else pe.source.size
    note = "SIGNATURE REMOVED: the file is no longer signed; Windows and virus scanners may say so"
    return kept, [Write.of(at, bytes(8))], [note]


def _new_section(pe: PeFile, size: int, kept: int, name: bytes) -> tuple[int, int, list[Write], str]:
    start = kept + -kept % pe.file_alignment
    end = max(section.end for section in pe.sections)
    address = end + -end % pe.section_alignment
    raw = size + -size % pe.file_alignment
    row = PeSection(name, size, address, raw, start, 0, 0, 0, 0, _READ_ONLY_DATA)
    writes = [
        Write.of(pe.file_header + 2, _HALF.pack(len(pe.sections) + 1)),
        pe.row(len(pe.sections), row),
        *_sizes(pe, address + size, raw),
    ]
    return start, address, writes, f"new section {name.decode()}"


def _grown_section(pe: PeFile, size: int, kept: int, alignment: int) -> tuple[int, int, list[Write], str]:
    """The last section taken up to the end of the file and beyond: what lay behind it is mapped too, and does no harm."""
    index = max(range(len(pe.sections)), key=lambda index: pe.sections[index].address)
    last = pe.sections[index]
    if not last.offset or last.offset != max(section.offset for section in pe.sections):
        raise EditError("has no room for a section header, and its last section is not last in the file", locator=pe.locator)
    if last.virtual_size - last.raw_size > _MAX_BLANK:
        raise EditError("has no room for a section header, and its last section is mostly blank", locator=pe.locator)
    blank = pe.source.peek(last.offset + last.raw_size, max(last.virtual_size - last.raw_size, 0))
    if any(blank):
        hint = "graft fewer images, or one that fits in place"
        message = "has no room for a section header, and its last section goes on in memory over bytes that the file has for something else"
        raise EditError(message, locator=pe.locator, hint=hint)
    start = max(kept, last.offset + last.virtual_size)
    start += -(start - last.offset) % max(pe.file_alignment, alignment)
    length = start - last.offset + size
    raw = length + -length % pe.file_alignment
    grown = last._replace(virtual_size=length, raw_size=raw, flags=last.flags & ~_DISCARDABLE)
    writes = [pe.row(index, grown), *_sizes(pe, last.address + length, raw - last.raw_size)]
    return start, last.address + start - last.offset, writes, "last section grown (no room for a section header)"


def _sizes(pe: PeFile, end: int, added: int) -> list[Write]:
    image = end + -end % pe.section_alignment
    if image > _MAX_IMAGE:
        raise EditError(f"would take {image:#x} bytes in memory, more than Windows loads", locator=pe.locator, hint="graft fewer images")
    return [pe.put(_IMAGE_SIZE, image), pe.put(INITIALIZED_DATA, pe.long(INITIALIZED_DATA) + added)]


def wrappers_led(host: HostFile, pe: PeFile, moves: Mapping[int, int], *, shrunk: Sequence[int] = ()) -> list[Write]:
    """The wrappers of moved fatbins led to their new addresses. Their base relocations stay: they name the place, not the value.

    ``shrunk``: offsets of those that stay where they are and become shorter. EditError when something else refers to one, or into one.
    """
    writes, reached = [], set()
    for pointer in read_wrappers(host.source, host.container):
        if pointer.target is not None and pointer.target in moves:
            reached.add(pointer.target)
            writes.append(Write.of(pointer.wrapper.offset + 8, _WORD.pack(moves[pointer.target])))
    for offset in moves.keys() - reached:
        raise EditError("no wrapper points to it, so nothing would find it elsewhere", locator=pe.locator, offset=offset)
    old = [(pe.base + pe.address_of(each.offset), each.size) for each in host.payloads if each.offset in moves]
    old += [(pe.base + pe.address_of(each.offset) + 1, each.size - 1) for each in host.payloads if each.offset in shrunk]
    _refuse_other_references(pe, old, {write.offset for write in writes})
    return writes


def _refuse_other_references(pe: PeFile, old: Sequence[tuple[int, int]], known: set[int]) -> None:
    """EditError when a pointer that is no wrapper's, or code, leads into one of the ranges (address, size)."""
    ranges = sorted(old)
    starts = [start for start, _ in ranges]

    def inside(value: int) -> bool:
        index = bisect.bisect_right(starts, value) - 1
        return index >= 0 and value < ranges[index][0] + ranges[index][1]

    for place in pe.relocated() if ranges else ():
        at = pe.offset_of(place)
        if at is None or at in known:
            continue
        value = int.from_bytes(pe.source.peek(at, 8), "little")
        if inside(value):
            message = f"the pointer there leads into the fatbin too ({value:#x}), and would go on reading the old one"
            raise EditError(message, locator=pe.locator, offset=at)
    code = [(row.offset, row.raw_size, pe.base + row.address) for row in pe.sections if row.flags & _EXECUTABLE]
    low, high = (ranges[0][0], max(start + size for start, size in ranges)) if ranges else (0, 0)
    for at, value in code_references(pe.source, n.EM_X86_64, code, low, high, pe.locator):
        if inside(value):
            message = f"code at {at:#x} takes the address {value:#x} in the fatbin by itself, and would go on reading the old one"
            raise EditError(message, locator=pe.locator)


def checksum(source: Source, at: int) -> int:
    """The PE checksum of a file whose checksum field is at ``at``: the 16-bit words added with end-around carry, plus the size.

    2**16 is 1 modulo 65535, so the remainder of a chunk as one number is the folded sum of its words.
    """
    total, offset = 0, 0
    for chunk in source.chunks():
        total += int.from_bytes(chunk, "little") << 8 * (offset & 1)
        total %= 0xFFFF
        offset += len(chunk)
    field = source.read(at, 4)
    total = (total - (int.from_bytes(field, "little") << 8 * (at & 1))) % 0xFFFF
    return (total or 0xFFFF) + source.size


def checksum_field(pe: PeFile) -> tuple[int, int]:
    """The checksum that a file states, and the one it should."""
    return pe.long(_CHECKSUM), checksum(pe.source, pe.optional + _CHECKSUM)
