"""A second reader of edited programs: LIEF reads the original and the result, and both must be the same program but for the payloads.

It shares no code and no declaration with fatpatch, so that a mistake in how fatpatch reads ELF or PE cannot hide here.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any

from fatpatch.base.checks import CheckResult, check_of
from fatpatch.base.records import NamedTuple
from fatpatch.base.source import Source
from fatpatch.binfmt.pe.authenticode import LARGEST
from fatpatch.edit.host.second_relocations import RelocationTable, RelocationTables, relocation_problems
from fatpatch.formats.numbers import SHF_EXECINSTR
from fatpatch.gpucode.locate import PAYLOAD_SECTIONS
from fatpatch.model.kinds import ContainerKind
from fatpatch.model.tree import Node

_SMALL = 1 << 12
_NAME = "LIEF reads the same program"
_ANYWHERE = frozenset({"LOAD", "NOTE", "PHDR", "PT_NULL_"})
"""Program headers that an edit may move or give up."""
_UNREAD_ELF = ("relocations", "symtab_symbols", "symbol_versions", "notes", "overlay")
_UNREAD_PE = ("reloc", "rsrc", "signature")
_TABLES = (("RELA", "RELASZ", "rows"), ("JMPREL", "PLTRELSZ", "rows"), ("RELR", "RELRSZ", "packed"), ("REL", "RELSZ", "bytes"))
_UNSTABLE = frozenset({"CERTIFICATE_TABLE"})
"""Data directories that an edit may change."""


class _Facts(NamedTuple):
    """What must stay: by a name in words, things to count; and the relocation tables.

    ``loads``: [start, end) with access, of a file without sections: where there are some, each is one that must stay mapped.
    """

    kept: Mapping[str, Counter[Hashable]]
    loads: tuple[tuple[int, int, str], ...]
    tables: RelocationTables


def second_opinion(old: Node, new: Node, moves: Mapping[int, int]) -> CheckResult:
    """Compare a host before and after an edit. ``moves``: old to new file offset of payloads that moved."""
    if max(old.content.size, new.content.size) > LARGEST:
        return check_of(f"{_NAME}: not asked above {LARGEST >> 20} MiB", [])
    read = _elf if old.container == ContainerKind.ELF else _pe
    first, old_addresses = read(old.content, moves.keys())
    second, new_addresses = read(new.content, moves.values())
    if first is None or second is None:
        return check_of(_NAME, [] if first is None else ["it cannot read the result"])
    moved = {old_addresses[before]: new_addresses[after] for before, after in moves.items()}
    return check_of(_NAME, _problems(first, second, moved))


def opinion(node: Node) -> CheckResult:
    """Whether LIEF can read a program at all, and sees the sections that fatpatch sees."""
    if node.content.size > LARGEST:
        return check_of(f"LIEF reads it: not asked above {LARGEST >> 20} MiB", [])
    facts, _ = (_elf if node.container == ContainerKind.ELF else _pe)(node.content, ())
    return check_of("LIEF reads it", [] if facts is not None else [f"{node.locator}: it is no {node.container.upper()} file for LIEF"])


def _problems(old: _Facts, new: _Facts, moved: Mapping[int, int]) -> Iterator[str]:
    for name, rows in old.kept.items():
        gone, added = rows - new.kept[name], new.kept[name] - rows
        if name in ("section", "mapped section") and sum(gone.values()) <= 1 and sum(added.values()) <= 1:
            continue  # a note's header may name the new segment
        if gone or added:
            first = next(iter((gone or added).elements()))
            yield f"{name}: {sum(gone.values())} gone, {sum(added.values())} new, the first {first}"
    for start, end, access in old.loads:
        if not any(low <= start and end <= high and access == given for low, high, given in new.loads):
            yield f"memory at {start:#x} to {end:#x} ({access}) is not mapped as before"
    yield from relocation_problems(old.tables, new.tables, moved)


def _input(source: Source) -> str | list[int] | bytes:
    """What LIEF is given: the path of a whole file, which it reads twice as fast, else the bytes; few bytes it would take for a path."""
    if source.path is not None and source.base == 0 and source.size == os.path.getsize(source.path):
        return source.path
    data = source.read(0, source.size)
    return list(data) if len(data) < _SMALL else data


def _config(config: Any, unread: Iterable[str]) -> Any:
    """A reader's settings, without what is not compared: an object for each relocation and symbol takes most of its time."""
    for name in unread:
        setattr(config, f"parse_{name}", False)
    return config


def _offset_of(spans: Iterable[tuple[int, int, int]]) -> Callable[[int], int]:
    """Where an address lies in the file, by (address, size, offset) of what is mapped; -1 for nowhere. It holds on to nothing of LIEF's."""
    known = tuple(spans)
    return lambda address: next((offset + address - start for start, size, offset in known if start <= address < start + size), -1)


def _elf(source: Source, offsets: Iterable[int]) -> tuple[_Facts | None, dict[int, int]]:
    import lief

    lief.logging.disable()
    binary: Any = lief.ELF.parse(_input(source), _config(lief.ELF.ParserConfig(), _UNREAD_ELF))
    if binary is None:
        return None, {}
    segments = [(str(row.type).rpartition(".")[2], row.virtual_address, row.virtual_size, str(row.flags)) for row in binary.segments]
    kept: dict[str, Counter[Hashable]] = {
        "header": Counter([(str(binary.header.file_type), str(binary.header.machine_type), binary.header.entrypoint)]),
        "program header": Counter(row for row in segments if row[0] not in _ANYWHERE),
        "section": Counter(
            (row.name, str(row.type), row.virtual_address, row.size) for row in binary.sections if row.name not in PAYLOAD_SECTIONS
        ),
        "dynamic entry": Counter((str(row.tag), row.value) for row in binary.dynamic_entries),
        "dynamic symbol": Counter((row.name, row.value, row.size, str(row.type)) for row in binary.dynamic_symbols),
    }
    loads = tuple((start, start + size, access) for kind, start, size, access in segments if kind == "LOAD" and size)
    mapped = [  # writable, executable: two segments side by side may have become one that is both
        (row.name, row.virtual_address, "W" in access, "X" in access and bool(row.flags & SHF_EXECINSTR))
        for row in binary.sections
        if row.name not in PAYLOAD_SECTIONS and row.virtual_address and row.size
        for start, end, access in loads
        if start <= row.virtual_address < end
    ]
    kept["mapped section"] = Counter(mapped)
    values = {str(row.tag).rpartition(".")[2]: row.value for row in binary.dynamic_entries}
    offset_of = _offset_of(
        (row.virtual_address, row.physical_size, row.file_offset) for row in binary.segments if row.type == lief.ELF.Segment.TYPE.LOAD
    )
    places = ((name, values.get(name), values.get(size), layout) for name, size, layout in _TABLES)
    rows = {name: RelocationTable(offset_of(start), size, layout) for name, start, size, layout in places if start and size}
    tables = RelocationTables(source, rows, offset_of)
    return _Facts(kept, () if mapped else loads, tables), {at: binary.offset_to_virtual_address(at) for at in offsets}


def _pe(source: Source, offsets: Iterable[int]) -> tuple[_Facts | None, dict[int, int]]:
    import lief

    lief.logging.disable()
    binary: Any = lief.PE.parse(_input(source), _config(lief.PE.ParserConfig(), _UNREAD_PE))
    if binary is None:
        return None, {}
    header = binary.optional_header
    sections = [(row.name, row.virtual_address, row.virtual_size, row.characteristics) for row in binary.sections]
    directories = [(str(row.type).rpartition(".")[2], row.rva, row.size) for row in binary.data_directories]
    exports = binary.get_export().entries if binary.has_exports else ()
    tls = binary.tls
    kept: dict[str, Counter[Hashable]] = {
        "header": Counter([(str(binary.header.machine), binary.entrypoint, header.imagebase, str(header.subsystem))]),
        "data directory": Counter(row for row in directories if row[0] not in _UNSTABLE),
        "import": Counter((row.name, entry.name, entry.iat_value) for row in binary.imports for entry in row.entries),
        "export": Counter((entry.name, entry.address, entry.ordinal) for entry in exports),
        "thread-local storage": Counter([] if tls is None else [(tls.addressof_raw_data, tls.addressof_callbacks, tls.addressof_index)]),
    }
    named = [
        (start, start + size, f"{name} {access:#x}") for name, start, size, access in sections if name not in PAYLOAD_SECTIONS and size
    ]
    kept["section"] = Counter(named)
    offset_of = _offset_of((row.virtual_address, row.sizeof_raw_data, row.pointerto_raw_data) for row in binary.sections)
    relocated = ((name, start, size) for name, start, size in directories if name == "BASE_RELOCATION_TABLE" and size)
    rows = {name: RelocationTable(offset_of(start), size, "bytes") for name, start, size in relocated}
    tables = RelocationTables(source, rows, offset_of)
    return _Facts(kept, (), tables), {at: binary.offset_to_virtual_address(at) for at in offsets}
