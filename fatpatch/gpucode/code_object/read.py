"""AMD code objects: kernels and resources from the msgpack note, else from the ``.kd`` symbols; target, version, compiler.

Reference: AMDGPU usage, code object metadata (note AMDGPU, type 32); LLVM 22.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.binfmt.elf.elf64 import HEADER, SECTION, SYMBOL
from fatpatch.formats import numbers as n
from fatpatch.gpucode.code_object.target import CodeObjectHeader, identify, same_target
from fatpatch.gpucode.cubin.tables import name_budget, notes
from fatpatch.gpucode.metadata import unpacked
from fatpatch.gpucode.rows import AmdUsage, Argument, KernelRow

_FIELD = "NT_AMDGPU_METADATA"
_MAX_COMMENT = 1 << 16
_MAX_OVERLAP = 4
_MAX_SYMBOLS = 500_000
_MAX_NOTES = 16 << 20
_SHT_PROGBITS, _SHT_NOTE, _SHT_DYNSYM, _SHT_SYMTAB = 1, 7, 11, 2
_OBJECT = 1
_RELEASE = lazy_pattern(rb"\broc-(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)\b")
_COMPILER = lazy_pattern(rb"((?:AMD )?clang) version (\d[\w.]{0,40})")

Section = tuple[int, int, int, int, int, int, int, int, int, int]


class CodeObject(NamedTuple):
    """One code object read whole. ``noted_target`` is what its metadata says, ``variables`` bytes by name of what the host may set."""

    identity: CodeObjectHeader
    kernels: list[KernelRow]
    producer: str | None
    noted_target: str | None
    variables: dict[str, int]

    @property
    def target(self) -> str:
        """The target of the header; with that of the metadata where they contradict each other."""
        noted = self.noted_target
        if noted is None or same_target(noted, self.identity.target):
            return self.identity.target
        return f"{self.identity.target} (in its metadata {noted})"


def read_code_object(data: bytes, *, detail: bool = True) -> CodeObject:
    """Read a code object; without ``detail`` arguments and variables are left out. FormatError when it is damaged."""
    sections, names_index = _sections(data)
    symbols = _CodeObjectSymbols(data, sections)
    documents = list(_metadata(data, sections))
    kernels = [_row(kernel, symbols.sizes, detail=detail) for kernel in _listed(documents)]
    if not kernels:
        kernels = [(name, None, None, None, None, None, None, symbols.sizes.get(name), None) for name in sorted(symbols.kernels)]
    return CodeObject(identify(data[:64]), kernels, _producer(data, sections, names_index), _noted_target(documents), symbols.variables)


def functions(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, machine code) of every kernel of a code object. FormatError when it is damaged."""
    sections, _ = _sections(data)
    symbols = _CodeObjectSymbols(data, sections)
    names = symbols.kernels or {_row(kernel, {}, detail=False)[0] for kernel in _listed(list(_metadata(data, sections)))}
    for name in sorted(names & symbols.places.keys()):
        index, address = symbols.places[name]
        start = sections[index][4] + address - sections[index][3]
        yield name, data[start : start + symbols.sizes[name]]


def _sections(data: bytes) -> tuple[list[Section], int]:
    """The section headers, and the index of that of their names."""
    if len(data) < HEADER.size or data[:4] != n.ELF_MAGIC:
        raise FormatError(f"expected a code object (7f454c46), got {data[:4].hex() or 'nothing'}", offset=0, field="code object")
    fields = HEADER.unpack_from(data)
    machine, shoff, shentsize, shnum, names_index = fields[2], fields[6], fields[11], fields[12], fields[13]
    if machine != n.EM_AMDGPU:
        raise FormatError(f"expected machine {n.EM_AMDGPU} (AMDGPU), got {machine}", offset=18, field="e_machine")
    if shentsize != SECTION.size or shoff + shnum * SECTION.size > len(data):
        raise FormatError(f"{shnum} section headers at {shoff:#x} do not fit in {len(data):#x} bytes", offset=40, field="e_shoff")
    sections: list[Section] = list(SECTION.iter_unpack(data[shoff : shoff + shnum * SECTION.size]))
    if sum(row[5] for row in sections if row[1] != n.SHT_NOBITS) > _MAX_OVERLAP * len(data):
        raise LimitError("the sections overlap without end", offset=shoff, field="sh_size")
    return sections, names_index


def _listed(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kernels that the metadata lists."""
    return [kernel for document in documents for kernel in _list(document.get("amdhsa.kernels")) if isinstance(kernel, dict)]


class _CodeObjectSymbols:
    """Code bytes by function, the names of kernel descriptors, and bytes by name of the variables that are visible outside.

    A function whose symbol has no size reaches to the next symbol of its section, or to the end of that.
    """

    def __init__(self, data: bytes, sections: list[Section]) -> None:
        self.sizes: dict[str, int] = {}
        self.kernels: set[str] = set()
        self.variables: dict[str, int] = {}
        self._places: dict[int, set[int]] = {}
        self._without: dict[str, tuple[int, int]] = {}
        self.places: dict[str, tuple[int, int]] = {}
        """Section and address of each function."""
        for row in sections:
            if row[1] in (_SHT_DYNSYM, _SHT_SYMTAB) and row[6] < len(sections):
                self._table(data, row, sections[row[6]], sections)
        for name, (index, value) in self._without.items():
            behind = sorted(each for each in self._places[index] if each > value)
            end = sections[index][3] + sections[index][5]
            self.sizes[name] = max((behind[0] if behind else end) - value, 0)

    def _table(self, data: bytes, row: Section, names: Section, sections: list[Section]) -> None:
        strings = data[names[4] : names[4] + names[5]]
        if row[5] > _MAX_SYMBOLS * SYMBOL.size:
            raise LimitError(f"{row[5] // SYMBOL.size} symbols, more than {_MAX_SYMBOLS}", offset=row[4], field="symbol table")
        table = data[row[4] : row[4] + row[5]]
        total = 0
        for name_at, info, _, index, value, size in SYMBOL.iter_unpack(table[: len(table) // SYMBOL.size * SYMBOL.size]):
            raw = strings[name_at : strings.find(b"\0", name_at)]
            total += len(raw)
            if total > name_budget(len(strings)):
                raise LimitError("the symbol names overlap without end", field="st_name")
            name = raw.decode("utf-8", "backslashreplace")
            code = 0 < index < len(sections) and bool(sections[index][2] & n.SHF_EXECINSTR)
            if code:
                self._places.setdefault(index, set()).add(value)
            if name.endswith(".kd") and index:
                self.kernels.add(name[:-3])
            else:
                self.sizes[name] = size
                if code:
                    self.places[name] = index, value
                    if not size:
                        self._without[name] = index, value
                if row[1] == _SHT_DYNSYM and index and info & 0xF == _OBJECT:
                    self.variables[name] = size


def _metadata(data: bytes, sections: list[Section]) -> Iterator[dict[str, Any]]:
    """The metadata notes: one, or with link-time optimisation one for each part."""
    for start, end in metadata_ranges(data, sections):
        yield unpacked(data[start:end], _FIELD)


def metadata_ranges(data: bytes, sections: list[Section]) -> Iterator[tuple[int, int]]:
    """Where the metadata notes lie; LimitError when they add up to more than real ones do."""
    total = 0
    for row in sections:
        if row[1] != _SHT_NOTE:
            continue
        section = data[row[4] : row[4] + row[5]]
        at = 0
        for kind, name, description in notes(section):
            at = section.index(description, at) if description else at
            if kind == n.NOTE_AMDGPU_METADATA and name.startswith(b"AMDGPU"):
                total += len(description)
                if total > _MAX_NOTES:
                    raise LimitError(f"more than {_MAX_NOTES:#x} bytes of metadata", offset=row[4] + at, field=_FIELD)
                yield row[4] + at, row[4] + at + len(description)
            at += len(description)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _noted_target(documents: list[dict[str, Any]]) -> str | None:
    targets = [document.get("amdhsa.target") for document in documents]
    return next((_processor(target)[:200] for target in targets if isinstance(target, str)), None)


def _processor(target: str) -> str:
    """``gfx90a:xnack+`` of a target id with its triple: amdgcn-amd-amdhsa--gfx90a:xnack+, amdgcn-amd-amdhsa-unknown-gfx90a:xnack+."""
    at = target.rfind("-gfx")
    return target[at + 1 :] if at >= 0 else target.rsplit("--", 1)[-1]


def _producer(data: bytes, sections: list[Section], names_index: int) -> str | None:
    """``ROCm 6.4.4``, or the compiler where its release is not told, out of .comment."""
    if names_index >= len(sections):
        return None
    names = data[sections[names_index][4] : sections[names_index][4] + sections[names_index][5]]
    comment = next((row for row in sections if row[1] == _SHT_PROGBITS and names.startswith(b".comment\0", row[0])), None)
    text = b"" if comment is None else data[comment[4] : comment[4] + min(comment[5], _MAX_COMMENT)]
    if found := _RELEASE.search(text):
        return f"ROCm {found[1].decode()}"
    found = _COMPILER.search(text)
    return f"{found[1].decode()} {found[2].decode()}" if found else None


def _row(kernel: dict[str, Any], sizes: dict[str, int], *, detail: bool) -> KernelRow:
    def number(key: str) -> int | None:
        return _number(kernel.get(key))

    symbol = kernel.get(".symbol")
    own = kernel.get(".name")
    name = symbol[:-3] if isinstance(symbol, str) and symbol.endswith(".kd") else own if isinstance(own, str) else ""
    arguments = tuple(_arguments(kernel.get(".args"))) if detail else ()
    return (
        name,
        number(".vgpr_count"),
        number(".group_segment_fixed_size"),
        number(".private_segment_fixed_size"),
        None,
        number(".max_flat_workgroup_size"),
        tuple((each.offset, each.size) for each in arguments if not each.hidden),
        sizes.get(name),
        AmdUsage(
            number(".agpr_count"),
            number(".sgpr_count"),
            number(".vgpr_spill_count"),
            number(".sgpr_spill_count"),
            number(".kernarg_segment_size"),
            number(".kernarg_segment_align"),
            number(".wavefront_size"),
            bool(kernel.get(".uses_dynamic_stack", False)),
            arguments,
        ),
    )


def _arguments(listed: object) -> list[Argument]:
    found = []
    for part in _list(listed):
        offset, size = (_number(part.get(".offset")), _number(part.get(".size"))) if isinstance(part, dict) else (None, None)
        if offset is not None and size is not None:
            kind, name = part.get(".value_kind"), part.get(".name")
            found.append(Argument(offset, size, kind if isinstance(kind, str) else "", name if isinstance(name, str) else None))
    return found


def _number(value: object) -> int | None:
    """A count or size; what is none is not told."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
