"""The class of every kernel body in a cubin, from its bytes alone (reference: stubs, section A)."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from fatpatch.base.errors import FormatError
from fatpatch.binfmt.elf.elf64 import name_budget
from fatpatch.formats import numbers as n
from fatpatch.gpucode import flow
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.gpucode.seen import SeenBodies, key_of

_FUNC = 2
_UNDEFINED = 0
_MAX_NAME = 1 << 14
_FIRST_WITH_16_BYTES = 70
_LAST_OF_OLD = 62
_SMALL = 1 << 13
_ASSERTIONS = {b"__assertfail"}
_PRINTERS = {b"vprintf"}


def encoding(arch: int | None) -> ModuleType | None:
    """The module that reads machine code of an SM number; None for one that none of them was checked with."""
    if arch is not None and 50 <= arch <= _LAST_OF_OLD:
        from fatpatch.gpucode.cubin import maxwell

        return maxwell
    if arch is not None and arch >= _FIRST_WITH_16_BYTES:
        from fatpatch.gpucode.cubin import volta

        return volta
    return None


def cubin_bodies(data: bytes) -> dict[str, str]:
    """Kernel name -> class (see ``flow``) for every kernel of a cubin; FormatError when it is damaged."""
    return bodies_of(Tables(data))


def bodies_of(tables: Tables, seen: SeenBodies | None = None) -> dict[str, str]:
    """``cubin_bodies`` of a parsed cubin; ``seen`` remembers small bodies for others: stubs, which take longest, are nearly all alike."""
    sections, budget = _Sections(tables, seen or SeenBodies()), flow.BlockBudget()
    return {name: sections.body(section, offset, asserts, budget) for name, section, offset, asserts in _kernels(tables)}


def kernel_sections(tables: Tables) -> dict[str, int]:
    """Kernel name -> the index of the section that holds its code."""
    return {name: section for name, section, _, _ in _kernels(tables)}


COPIES_AHEAD: Final = 80
"""The SM number from which on GPUs have ``cp.async`` (PTX ISA)."""


def copies_ahead(data: bytes) -> frozenset[str]:
    """The kernels of a cubin with instructions that GPUs have from ``COPIES_AHEAD`` on alone (``volta.copies_ahead``)."""
    from fatpatch.gpucode.cubin import volta

    tables = Tables(data)
    if encoding(tables.identity.arch) is not volta:
        return frozenset()
    kernels = kernel_sections(tables)
    found = {section for section in kernels.values() if volta.copies_ahead(tables.content(tables.rows[section]))}
    return frozenset(name for name, section in kernels.items() if section in found)


def _kernels(tables: Tables) -> list[tuple[str, int, int, bool]]:
    """(name, section index, offset of the entry in it, whether assertions are all that the module calls) of each kernel."""
    symbols, strings = tables.symbols()
    found: dict[bytes, tuple[int, int]] = {}
    outside: set[bytes] = set()
    budget = name_budget(len(strings))
    for name_at, info, other, section, value, _ in symbols:
        if info & 0xF != _FUNC or not (other & n.STO_CUDA_ENTRY or section == _UNDEFINED):
            continue
        name = strings[name_at : strings.find(b"\0", name_at)]
        budget -= len(name)
        if budget < 0 or len(name) > _MAX_NAME:
            raise FormatError("the symbol names overlap without end", field="st_name")
        if section == _UNDEFINED:
            outside.add(name)
        elif other & 0xE0 != 0xA0:
            if section >= len(tables.rows) or not tables.has_bytes(tables.rows[section]):
                raise FormatError(f"the kernel {name[:80].decode('utf-8', 'backslashreplace')!r} has no code", field="st_shndx")
            found.setdefault(name, (section, value))
    if not strings and any(name.startswith(b".text.") for name in tables.by_name()):
        raise FormatError("there is code, but no symbol table that names its kernels", field="symtab")
    asserts = bool(outside & _ASSERTIONS) and not outside & _PRINTERS
    return [(name.decode("utf-8", "backslashreplace"), *place, asserts) for name, place in found.items()]


class _Sections:
    """The code of a cubin, each section decoded once however many kernels lie in it."""

    def __init__(self, tables: Tables, seen: SeenBodies) -> None:
        self._tables = tables
        self._seen = seen
        self._reader = encoding(tables.identity.arch)
        self._programs: dict[int, flow.CodeSection | None] = {}

    def body(self, section: int, offset: int, asserts: bool, budget: flow.BlockBudget) -> str:
        """The class of the kernel that starts at ``offset`` of a section."""
        if self._reader is None:
            return flow.UNKNOWN
        if section not in self._programs:
            code = self._tables.content(self._tables.rows[section])
            if self._reader.is_real(code):
                self._programs[section] = None
            elif len(code) <= _SMALL:
                variant = (offset << 16 | (self._tables.identity.arch or 0)) << 1 | asserts
                return self._seen.body(key_of(code), variant, lambda: self._classified(code, offset, asserts, budget))
            else:
                self._programs[section] = self._program(code)
        program = self._programs[section]
        return flow.REAL if program is None else flow.classify(program, program.index_of(offset), asserts=asserts, budget=budget)

    def _classified(self, code: bytes, offset: int, asserts: bool, budget: flow.BlockBudget) -> str:
        program = self._program(code)
        return flow.classify(program, program.index_of(offset), asserts=asserts, budget=budget)

    def _program(self, code: bytes) -> flow.CodeSection:
        reader, arch = self._reader, self._tables.identity.arch
        assert reader is not None
        assert arch is not None
        program: flow.CodeSection = reader.SECTION(code, arch)
        return program
