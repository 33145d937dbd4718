"""The class of every kernel body in a cubin, from its bytes alone (reference: stubs, section A)."""

from __future__ import annotations

from types import ModuleType

from fatpatch.errors import FormatError
from fatpatch.formats import numbers as n
from fatpatch.images import flow
from fatpatch.images.cubin_tables import Tables, name_budget

_FUNC = 2
_UNDEFINED = 0
_OFFSET_FROM_ENTRY = 0
_FIRST_WITH_16_BYTES = 70
_LAST_OF_OLD = 62
_EFFECTS = {flow.EFFECT, flow.LOAD_EFFECT}
_ASSERTIONS = {b"__assertfail"}
_PRINTERS = {b"vprintf"}


def encoding(arch: int | None) -> ModuleType | None:
    """The module that reads machine code of an SM number; None for one that none of them was checked with."""
    if arch is not None and 50 <= arch <= _LAST_OF_OLD:
        from fatpatch.images import maxwell

        return maxwell
    if arch is not None and arch >= _FIRST_WITH_16_BYTES:
        from fatpatch.images import volta

        return volta
    return None


def cubin_bodies(data: bytes) -> dict[str, str]:
    """Kernel name -> class (``flow.CLASSES``) for every kernel of a cubin; FormatError when it is damaged."""
    tables = Tables(data)
    return {name: body_of(tables, section, offset, asserts) for name, section, offset, asserts in _kernels(tables)}


def kernel_code(tables: Tables) -> dict[str, bytes]:
    """Kernel name -> the bytes of its section."""
    return {name: tables.content(tables.rows[section]) for name, section, _, _ in _kernels(tables)}


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
        if budget < 0:
            raise FormatError("the symbol names overlap without end", field="st_name")
        if section == _UNDEFINED:
            outside.add(name)
        elif other & 0xE0 != 0xA0 and section < len(tables.rows):
            found.setdefault(name, (section, value))
    asserts = bool(outside & _ASSERTIONS) and not outside & _PRINTERS
    return [(name.decode("utf-8", "backslashreplace"), *place, asserts) for name, place in found.items()]


def body_of(tables: Tables, section: int, offset: int, asserts: bool) -> str:
    """The class of the kernel that starts at ``offset`` of a section.

    A kernel with a store to global memory and no trap is real without a walk: that is nearly all of them.
    """
    arch = tables.identity.arch
    reader = encoding(arch)
    if reader is None:
        return flow.UNKNOWN
    code = tables.content(tables.rows[section])
    present = reader.kinds_present(code)
    if flow.TRAP not in present and present & _EFFECTS:
        return flow.REAL
    program = reader.Section(code, arch) if arch is not None and arch >= _FIRST_WITH_16_BYTES else reader.Section(code)
    return flow.classify(program, program.index_of(offset), asserts=asserts)
