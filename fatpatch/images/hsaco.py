"""AMD code objects: kernels and resources from the msgpack note, else from the ``.kd`` symbols.

Reference: AMDGPU back-end usage, code object metadata (note AMDGPU, type 32); LLVM 22.
"""

from __future__ import annotations

from typing import Any

from fatpatch.elf64 import HEADER, SECTION, SYMBOL
from fatpatch.errors import FormatError, LimitError
from fatpatch.formats import numbers as n
from fatpatch.images.cubin_tables import name_budget, notes
from fatpatch.images.rows import KernelRow

_CONTAINER_CODES = bytes(range(0x80, 0xA0))
_MAX_NOTE = 32 << 20
_MAX_CONTAINERS = 400_000
_SHT_NOTE, _SHT_DYNSYM, _SHT_SYMTAB = 7, 11, 2


def hsaco_kernels(data: bytes) -> list[KernelRow]:
    """One row for each kernel of a code object; registers are VGPRs, local bytes the scratch of one work item."""
    if len(data) < HEADER.size or data[:4] != n.ELF_MAGIC:
        raise FormatError(f"expected a code object (7f454c46), got {data[:4].hex() or 'nothing'}", offset=0, field="code object")
    fields = HEADER.unpack_from(data)
    shoff, shentsize, shnum = fields[6], fields[11], fields[12]
    if shentsize != SECTION.size or shoff + shnum * SECTION.size > len(data):
        raise FormatError(f"{shnum} section headers at {shoff:#x} do not fit in {len(data):#x} bytes", offset=40, field="e_shoff")
    sections = list(SECTION.iter_unpack(data[shoff : shoff + shnum * SECTION.size]))
    sizes, names = _symbols(data, sections)
    noted = _from_notes(data, sections, sizes)
    return noted if noted else [(name, None, None, None, None, None, None, sizes.get(name)) for name in sorted(names)]


def _symbols(data: bytes, sections: list[tuple[int, ...]]) -> tuple[dict[str, int], set[str]]:
    """Code bytes by function name, and the names of kernel descriptors."""
    sizes: dict[str, int] = {}
    names: set[str] = set()
    for row in sections:
        if row[1] not in (_SHT_DYNSYM, _SHT_SYMTAB) or row[6] >= len(sections):
            continue
        strings = data[sections[row[6]][4] : sections[row[6]][4] + sections[row[6]][5]]
        table = data[row[4] : row[4] + row[5]]
        total = 0
        for name_at, _, _, index, _, size in SYMBOL.iter_unpack(table[: len(table) // SYMBOL.size * SYMBOL.size]):
            raw = strings[name_at : strings.find(b"\0", name_at)]
            total += len(raw)
            if total > name_budget(len(strings)):
                raise LimitError("the symbol names overlap without end", field="st_name")
            name = raw.decode("utf-8", "backslashreplace")
            if name.endswith(".kd") and index:
                names.add(name[:-3])
            else:
                sizes[name] = size
    return sizes, names


def _from_notes(data: bytes, sections: list[tuple[int, ...]], sizes: dict[str, int]) -> list[KernelRow]:
    rows: list[KernelRow] = []
    for row in sections:
        if row[1] != _SHT_NOTE:
            continue
        for kind, name, description in notes(data[row[4] : row[4] + row[5]]):
            if kind == n.NOTE_AMDGPU_METADATA and name.startswith(b"AMDGPU"):
                rows += [_row(kernel, sizes) for kernel in _unpacked(description)]
    return rows


def _unpacked(note: bytes) -> list[dict[str, Any]]:
    import msgpack

    containers = len(note) - len(note.translate(None, _CONTAINER_CODES))
    if len(note) > _MAX_NOTE or containers > _MAX_CONTAINERS:
        raise LimitError(f"a metadata note of {len(note):#x} bytes with {containers} maps and lists", field="NT_AMDGPU_METADATA")
    try:
        document = msgpack.unpackb(note, strict_map_key=False, max_array_len=_MAX_CONTAINERS, max_map_len=_MAX_CONTAINERS)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"the metadata note is damaged: {error}", field="NT_AMDGPU_METADATA") from error
    kernels = document.get("amdhsa.kernels", []) if isinstance(document, dict) else []
    return [kernel for kernel in kernels if isinstance(kernel, dict)] if isinstance(kernels, list) else []


def _row(kernel: dict[str, Any], sizes: dict[str, int]) -> KernelRow:
    def number(key: str) -> int | None:
        value = kernel.get(key)
        return value if isinstance(value, int) else None

    symbol = kernel.get(".symbol")
    own = kernel.get(".name")
    name = symbol[:-3] if isinstance(symbol, str) and symbol.endswith(".kd") else own if isinstance(own, str) else ""
    arguments = kernel.get(".args")
    parameters = tuple(
        (int(part[".offset"]), int(part[".size"]))
        for part in (arguments if isinstance(arguments, list) else [])
        if isinstance(part, dict) and isinstance(part.get(".offset"), int) and isinstance(part.get(".size"), int)
        and not (isinstance(kind := part.get(".value_kind"), str) and kind.startswith("hidden_"))
    )  # fmt: skip
    return (
        name,
        number(".vgpr_count"),
        number(".group_segment_fixed_size"),
        number(".private_segment_fixed_size"),
        None,
        number(".max_flat_workgroup_size"),
        parameters,
        sizes.get(name),
    )
