"""What must hold of a PE file after an edit (reference: graft, invariants to check after writing)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.source import Source
from fatpatch.binfmt.pe.layout import PeFile
from fatpatch.binfmt.pe.tables import DEBUG, RELOCATIONS
from fatpatch.edit.host.check_memory import memory_problems
from fatpatch.edit.host.pe_seal import checksum_field
from fatpatch.gpucode.fatbin.wrapper import read_wrappers
from fatpatch.model.tree import Node


def pe_checks(old_node: Node, new_node: Node, moves: Mapping[int, int], *, compacted: bool) -> Iterator[CheckResult]:
    """Sections, sizes, base relocations and the checksum; of a compacted file all that is loaded."""
    old, new = PeFile(old_node.content, old_node.locator), PeFile(new_node.content, new_node.locator)
    yield check_of("sections ascending, apart and inside the file", section_problems(new))
    if compacted:
        yield check_of("sections where they were in memory", _moved_problems(old, new))
        yield check_of("memory as before but for the payloads", _memory_problems(old_node, old, new, moves))
    else:
        yield check_of("old sections unchanged", _kept_problems(old, new))
    image = max(section.end for section in new.sections)
    image += -image % new.section_alignment
    yield check_of(
        "SizeOfImage fits", [] if new.image_size in (image, old.image_size) else [f"expected {image:#x}, got {new.image_size:#x}"]
    )
    yield check_of("base relocations byte-identical", _relocation_problems(old, new))
    said, real = checksum_field(new)
    yield check_of("checksum right", [] if said in (0, real) else [f"expected {real:#x}, got {said:#x}"])


def section_problems(pe: PeFile) -> Iterator[str]:
    """What a loader would stumble over in the section table."""
    end = 0
    for section in pe.sections:
        name = section.name.rstrip(b"\0").decode("ascii", "backslashreplace")
        if end and section.address != end + -end % pe.section_alignment:
            yield f"{name} is at {section.address:#x}, not right behind {end:#x}"
        end = section.end
        if section.offset + section.raw_size > pe.source.size:
            yield f"{name} ends outside the file"


def _kept_problems(old: PeFile, new: PeFile) -> Iterator[str]:
    last = max(range(len(old.sections)), key=lambda index: old.sections[index].address)
    for index, section in enumerate(old.sections):
        now = new.sections[index] if index < len(new.sections) else None
        grown = (
            now is not None and index == last and now[2] == section[2] and now.offset == section.offset and now.raw_size >= section.raw_size
        )
        if now != section and not grown:
            yield f"section {index} has changed"


def _moved_problems(old: PeFile, new: PeFile) -> Iterator[str]:
    """Of a compacted file: what may not change of a section header."""
    if len(old.sections) != len(new.sections):
        yield f"{len(new.sections)} sections, expected {len(old.sections)}"
    for index, (row, now) in enumerate(zip(old.sections, new.sections, strict=False)):
        if row._replace(offset=0, raw_size=0, virtual_size=0) != now._replace(offset=0, raw_size=0, virtual_size=0) or row.end != now.end:
            yield f"section {index} has changed its kind or its place in memory"


def _memory_problems(node: Node, old: PeFile, new: PeFile, moves: Mapping[int, int]) -> Iterator[str]:
    wrappers = {old.address_of(pointer.wrapper.offset + 8) for pointer in read_wrappers(old.source, node.layout)}
    holders = [row for row in old.sections if any(row.offset <= offset < row.offset + row.raw_size for offset in moves)]
    address, size = old.directory(DEBUG)
    spans = [(row.address, row.address + min(row.raw_size, row.virtual_size or row.raw_size)) for row in old.sections]
    payloads = [(row.address, row.end) for row in holders]
    apart = [(address, address + size), *((word, word + 8) for word in wrappers)]
    yield from memory_problems(spans, (old.source, old.offset_of), (new.source, new.offset_of), apart, payloads)


def _relocation_problems(old: PeFile, new: PeFile) -> list[str]:
    before, after = _directory(old), _directory(new)
    return [] if before == after else ["the base relocation table has changed"]


def _directory(pe: PeFile) -> tuple[int, int, bytes]:
    """Address, size and bytes of the base relocation table."""
    address, size = pe.directory(RELOCATIONS)
    section = next((each for each in pe.sections if each.address <= address < each.end), None)
    source: Source = pe.source
    data = b"" if section is None or not size else source.peek(section.offset + address - section.address, size)
    return address, size, data
