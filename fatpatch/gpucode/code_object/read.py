"""AMD code objects: kernels and resources from the msgpack note, else from the ``.kd`` symbols; target, version, compiler.

Reference: AMDGPU usage, code object metadata (note AMDGPU, type 32); LLVM 22.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from fatpatch.base.errors import FormatError, LimitError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.base.source_bytes import SourceBytes
from fatpatch.binfmt.elf.elf64 import ADDRESS, FLAGS, LINK, OFFSET, SIZE, SYMBOL, TYPE, ElfTables, Row, header_of, name_budget, notes, rows
from fatpatch.formats import numbers as n
from fatpatch.gpucode.code_object.target import CodeObjectHeader, identify
from fatpatch.gpucode.metadata import unpacked
from fatpatch.gpucode.rows import AmdUsage, Argument, KernelFacts
from fatpatch.model.target import Target

_FIELD = "NT_AMDGPU_METADATA"
_MAX_COMMENT = 1 << 16
_MAX_SYMBOLS = 2_000_000  # rocBLAS for one GPU has 708,335, most of them labels
_MAX_NOTES = 16 << 20
_OBJECT = 1
_HEADER = 64
_RELEASE = lazy_pattern(rb"\broc-(\d{1,3}\.\d{1,3}(?:\.\d{1,3})?)\b")
_COMPILER = lazy_pattern(rb"((?:AMD )?clang) version (\d[\w.]{0,40})")


class CodeObject(NamedTuple):
    """One code object read whole. ``noted_target`` is what its metadata says, ``variables`` bytes by name of what the host may set."""

    identity: CodeObjectHeader
    kernels: list[KernelFacts]
    producer: str | None
    noted_target: str | None
    variables: dict[str, int]

    @property
    def target(self) -> str:
        """The target of the header; with that of the metadata where they contradict each other."""
        noted = self.noted_target
        if noted is None or Target(noted).means(self.identity.target):
            return self.identity.target
        return f"{self.identity.target} (in its metadata {noted})"


def read_code_object(data: bytes | SourceBytes, *, detail: bool = True) -> CodeObject:
    """Read a code object; without ``detail`` arguments and variables are left out. FormatError when it is damaged.

    Of one that is too large for memory only tables are read; where its metadata is too, its kernels have names and sizes alone.
    """
    tables = tables_of(data)
    symbols = _CodeObjectSymbols(tables)
    documents = [] if isinstance(data, SourceBytes) and _noted_bytes(tables) > _MAX_NOTES else list(_metadata(tables))
    kernels = [_row(kernel, symbols.sizes, detail=detail) for kernel in _listed(documents)]
    if not kernels:
        kernels = [KernelFacts(name, code_size=symbols.sizes.get(name)) for name in sorted(symbols.kernels)]
    return CodeObject(identify(data[:64]), kernels, _producer(tables), _noted_target(documents), symbols.variables)


def functions(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(name, machine code) of every kernel of a code object. FormatError when it is damaged."""
    tables = tables_of(data)
    symbols = _CodeObjectSymbols(tables)
    names = symbols.kernels or {_row(kernel, {}, detail=False).name for kernel in _listed(list(_metadata(tables)))}
    for name in sorted(names & symbols.places.keys()):
        index, address = symbols.places[name]
        start = tables.rows[index][OFFSET] + address - tables.rows[index][ADDRESS]
        yield name, data[start : start + symbols.sizes[name]]


def identity_of(data: bytes | SourceBytes) -> CodeObjectHeader:
    """What the header says of a code object whose sections are in their place. FormatError when they are not."""
    tables = tables_of(data)
    for row in tables.rows:
        if row[TYPE] != n.SHT_NOBITS and row[OFFSET] + row[SIZE] > len(data):
            message = f"a section ends at {row[OFFSET] + row[SIZE]:#x}, the code object at {len(data):#x}"
            raise FormatError(message, offset=row[OFFSET], field="sh_size")
    return identify(data[:64])


def tables_of(data: bytes | SourceBytes) -> ElfTables:
    """The sections of a code object. FormatError when it is none, or damaged."""
    header = header_of(data[:_HEADER])
    if header is None or data[:4] != n.ELF_MAGIC:
        raise FormatError(f"expected a code object (7f454c46), got {data[:4].hex()}", offset=0, field="code object")
    if header.machine != n.EM_AMDGPU:
        raise FormatError(f"expected machine {n.EM_AMDGPU} (AMDGPU), got {header.machine}", offset=18, field="e_machine")
    return ElfTables(cast(bytes, data), header, "code object")  # which asks for its length and for slices alone


def _listed(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The kernels that the metadata lists."""
    return [kernel for document in documents for kernel in _list(document.get("amdhsa.kernels")) if isinstance(kernel, dict)]


class _CodeObjectSymbols:
    """Code bytes by function, the names of kernel descriptors, and bytes by name of the variables that are visible outside.

    A function whose symbol has no size reaches to the next symbol of its section, or to the end of that.
    """

    def __init__(self, tables: ElfTables) -> None:
        self.sizes: dict[str, int] = {}
        self.kernels: set[str] = set()
        self.variables: dict[str, int] = {}
        self._places: dict[int, set[int]] = {}
        self._without: dict[str, tuple[int, int]] = {}
        self.places: dict[str, tuple[int, int]] = {}
        """Section and address of each function."""
        sections = tables.rows
        for row in sections:
            if row[TYPE] in (n.SHT_DYNSYM, n.SHT_SYMTAB) and row[LINK] < len(sections):
                self._table(tables.data, row, sections[row[LINK]], sections)
        for name, (index, value) in self._without.items():
            behind = sorted(each for each in self._places[index] if each > value)
            end = sections[index][ADDRESS] + sections[index][SIZE]
            self.sizes[name] = max((behind[0] if behind else end) - value, 0)

    def _table(self, data: bytes, row: Row, names: Row, sections: list[Row]) -> None:
        strings = data[names[OFFSET] : names[OFFSET] + names[SIZE]]
        if row[SIZE] > _MAX_SYMBOLS * SYMBOL.size:
            raise LimitError(f"{row[SIZE] // SYMBOL.size} symbols, more than {_MAX_SYMBOLS}", offset=row[OFFSET], field="symbol table")
        table = data[row[OFFSET] : row[OFFSET] + row[SIZE]]
        total = 0
        for name_at, info, _, index, value, size in rows(SYMBOL, table):
            code = 0 < index < len(sections) and bool(sections[index][FLAGS] & n.SHF_EXECINSTR)
            if code:
                self._places.setdefault(index, set()).add(value)
            if not info and code:  # a label
                continue
            raw = strings[name_at : strings.find(b"\0", name_at)]
            total += len(raw)
            if total > name_budget(len(strings)):
                raise LimitError("the symbol names overlap without end", field="st_name")
            name = raw.decode("utf-8", "backslashreplace")
            if name.endswith(".kd") and index:
                self.kernels.add(name[:-3])
            else:
                self.sizes[name] = size
                if code:
                    self.places[name] = index, value
                    if not size:
                        self._without[name] = index, value
                if row[TYPE] == n.SHT_DYNSYM and index and info & 0xF == _OBJECT:
                    self.variables[name] = size


def _noted_bytes(tables: ElfTables) -> int:
    return sum(row[SIZE] for row in tables.rows if row[TYPE] == n.SHT_NOTE)


def _metadata(tables: ElfTables) -> Iterator[dict[str, Any]]:
    """The metadata notes: one, or with link-time optimisation one for each part."""
    for start, end in metadata_ranges(tables):
        yield unpacked(tables.data[start:end], _FIELD)


def metadata_ranges(tables: ElfTables) -> Iterator[tuple[int, int]]:
    """Where the metadata notes lie; LimitError when they add up to more than real ones do."""
    total = 0
    for row in tables.rows:
        if row[TYPE] != n.SHT_NOTE:
            continue
        section = tables.data[row[OFFSET] : row[OFFSET] + row[SIZE]]
        at = 0
        for kind, name, description in notes(section):
            at = section.index(description, at) if description else at
            if kind == n.NOTE_AMDGPU_METADATA and name.startswith(b"AMDGPU"):
                total += len(description)
                if total > _MAX_NOTES:
                    raise LimitError(f"more than {_MAX_NOTES:#x} bytes of metadata", offset=row[OFFSET] + at, field=_FIELD)
                yield row[OFFSET] + at, row[OFFSET] + at + len(description)
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


def _producer(tables: ElfTables) -> str | None:
    """``ROCm 6.4.4``, or the compiler where its release is not told, out of .comment."""
    comment = tables.find(n.SHT_PROGBITS, b".comment")
    text = b"" if comment is None else tables.data[comment[OFFSET] : comment[OFFSET] + min(comment[SIZE], _MAX_COMMENT)]
    if found := _RELEASE.search(text):
        return f"ROCm {found[1].decode()}"
    found = _COMPILER.search(text)
    return f"{found[1].decode()} {found[2].decode()}" if found else None


def _row(kernel: dict[str, Any], sizes: dict[str, int], *, detail: bool) -> KernelFacts:
    def number(key: str) -> int | None:
        return _number(kernel.get(key))

    symbol = kernel.get(".symbol")
    own = kernel.get(".name")
    name = symbol[:-3] if isinstance(symbol, str) and symbol.endswith(".kd") else own if isinstance(own, str) else ""
    arguments = tuple(_arguments(kernel.get(".args"))) if detail else ()
    return KernelFacts(
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
