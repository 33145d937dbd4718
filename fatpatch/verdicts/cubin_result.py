"""What the driver makes of the bytes of a cubin that it has chosen (reference: load rules, sections A, B and E)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fatpatch.base.errors import LimitError
from fatpatch.binfmt.elf.elf64 import HEADER, INFO, SYMBOL, TYPE, Row, name_budget
from fatpatch.formats import numbers as n
from fatpatch.gpucode.cubin.header import identify
from fatpatch.gpucode.cubin.tables import Tables
from fatpatch.verdicts.load_result import CRASH, INVALID_IMAGE, INVALID_SOURCE, NO_IMAGE, NOT_FOUND, LoadResult

_OWN_DATA = (b".nv.global", b".nv.constant2", b".nv.constant3", b".nv.shared", b".nv_debug.shared")
DRIVERS_OWN: Final = frozenset({b"vprintf", b"malloc", b"free", b"__assertfail", b"__nv_aligned_device_malloc"})


def loaded(head: bytes, size: int, arch: int, *, eager: Callable[[], bytes] | None = None, labelled: bool = False) -> LoadResult:
    """The result of loading a cubin on a device, by its first bytes and its size; ``eager`` gives all of it where it is loaded whole.

    ``labelled``: a fatbin entry chose it, so a wrong target is error 300, not 209.
    """
    if head[:4] != n.ELF_MAGIC:
        return LoadResult(INVALID_IMAGE, None, "it is not a cubin")
    identity = identify(head)
    if identity is None:
        return LoadResult(INVALID_IMAGE, None, "its ELF header is cut")
    if identity.elf.machine != n.EM_CUDA or head[4:6] != b"\2\1":
        return LoadResult(INVALID_IMAGE, None, "it is an ELF file, but no cubin")
    if identity.elf.sections_end > size:
        if size <= HEADER.size:
            return LoadResult(INVALID_IMAGE, None, "it is cut behind its ELF header")
        return LoadResult(None, CRASH, "it is cut, its section headers are missing: the driver was seen to crash or to answer 200")
    if not identity.sound(size) or identity.arch is None or identity.elf.shnum == 0:
        return LoadResult(INVALID_IMAGE, None, "its ELF header is damaged")
    if not _runs(identity.arch, arch, identity.accelerated):
        if labelled:
            return LoadResult(INVALID_SOURCE, None, f"its entry is labelled for this GPU, but the cubin is sm_{identity.arch}")
        return LoadResult(NO_IMAGE, None, f"that does not run on {arch // 10}.{arch % 10}")
    if identity.relocatable and eager is not None:
        codes = unlinked(Tables(eager())).values()
        if codes:
            code = NOT_FOUND if NOT_FOUND in codes else INVALID_IMAGE  # measured for a module with kernels of both sorts
            what = "what another module must bring" if code == NOT_FOUND else "its own variables"
            return LoadResult(code, None, f"it is relocatable and refers to {what}: it must be linked first")
    return LoadResult()


def _runs(cubin: int, device: int, accelerated: bool) -> bool:
    if cubin == device:
        return True
    return not accelerated and cubin // 10 == device // 10 and cubin < device


def unlinked(tables: Tables) -> dict[str, int]:
    """Kernel -> the CUresult of its first use when a relocatable cubin is loaded without being linked; kernels that work are left out.

    Measured: 500 for what refers to an undefined symbol, 200 for what refers to variables of the cubin itself; of both, the one
    whose relocation stands first (30 kernels of bitsandbytes).
    """
    table = next((row for row in tables.rows if row[TYPE] == n.SHT_SYMTAB), None)
    if table is None:
        return {}
    symbols = _CubinSymbols(tables, table)
    names = {id(row): name for name, row in tables.by_name().items()}
    codes: dict[str, int] = {}
    for row in tables.rows:
        if row[INFO] >= len(tables.rows):
            continue
        place, _, kernel = names.get(id(tables.rows[row[INFO]]), b"").lstrip(b".").partition(b".")
        if place != b"text" or not kernel:
            continue
        for _, symbol, _ in tables.relocations(row):
            section, name = symbols.at(symbol) or (-1, b"")
            code = 0
            if section == 0 and name and name not in DRIVERS_OWN:
                code = NOT_FOUND
            elif 0 < section < len(tables.rows) and names.get(id(tables.rows[section]), b"").startswith(_OWN_DATA):
                code = INVALID_IMAGE
            if code:
                decoded = kernel.decode("utf-8", "backslashreplace")
                codes.setdefault(decoded, code)
                break
    return codes


class _CubinSymbols:
    """The symbols of a cubin, each looked at once: (section index, name)."""

    def __init__(self, tables: Tables, row: Row) -> None:
        self._table, self._strings = tables.content(row), tables.symbols()[1]
        self._known: dict[int, tuple[int, bytes]] = {}
        self._left = name_budget(len(self._strings))

    def at(self, index: int) -> tuple[int, bytes] | None:
        """None for an index behind the table."""
        if (index + 1) * SYMBOL.size > len(self._table):
            return None
        if index not in self._known:
            name_at, _, _, section, _, _ = SYMBOL.unpack_from(self._table, index * SYMBOL.size)
            name = self._strings[name_at : self._strings.find(b"\0", name_at)]
            self._left -= len(name)
            if self._left < 0:
                raise LimitError("the symbol names overlap without end", field="st_name")
            self._known[index] = (section, name)
        return self._known[index]
