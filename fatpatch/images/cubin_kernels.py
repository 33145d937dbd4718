"""The kernels of a cubin and the resources they declare, equal to ``cuobjdump -res-usage`` (tested against it).

Rows are plain tuples in the field order of ``model.Kernel``: they cross process borders by the ten thousand.
"""

from __future__ import annotations

import struct

from fatpatch.formats import numbers as n
from fatpatch.images.cubin_tables import Tables, records
from fatpatch.images.rows import KernelRow

_UNKNOWN_STACK = 0xFFFFFFFF
_FUNC = 2
_PAIR = struct.Struct("<II")
_PARAMETER = struct.Struct("<IHHI")
_PARAMETER_V2 = struct.Struct("<IHHHH")
_DIM = struct.Struct("<III")


def cubin_kernels(tables: Tables) -> list[KernelRow]:
    """One row for each entry function: STT_FUNC symbols marked STO_CUDA_ENTRY."""
    symbols, strings = tables.symbols()
    by_name = tables.by_name
    registers, stacks = _global_records(tables)
    high_byte = not tables.identity.new_layout
    rows: list[KernelRow] = []
    for index, (name_at, info, other, section, _, size) in enumerate(symbols):
        if not other & n.STO_CUDA_ENTRY or info & 0xF != _FUNC or other & 0xE0 == 0xA0:
            continue
        name = strings[name_at : strings.find(b"\0", name_at)].decode("utf-8", "backslashreplace")
        count = registers.get(index)
        if count is None and high_byte and section < len(tables.sections):
            count = tables.sections[section].info >> 24 or None
        shared = by_name.get(f".nv.shared.{name}")
        banks = _constant_banks(tables, name)
        max_threads, parameters = _kernel_records(tables, name)
        stack = stacks.get(index, 0)
        rows.append(
            (
                name,
                count,
                shared.size if shared is not None else 0,
                None if stack == _UNKNOWN_STACK else stack,
                banks,
                max_threads,
                parameters,
                size,
            )
        )
    return rows


def _global_records(tables: Tables) -> tuple[dict[int, int], dict[int, int]]:
    """Register counts and stack sizes by symbol index, from the module-wide .nv.info."""
    registers: dict[int, int] = {}
    stacks: dict[int, int] = {}
    row = tables.by_name.get(".nv.info")
    for code, value in records(tables.content(row)) if row is not None else ():
        if len(value) >= 8:
            if code == n.EIATTR_REGCOUNT:
                symbol, number = _PAIR.unpack_from(value)
                registers[symbol] = number
            elif code == n.EIATTR_MIN_STACK_SIZE:
                symbol, number = _PAIR.unpack_from(value)
                stacks[symbol] = number
    return registers, stacks


def _constant_banks(tables: Tables, name: str) -> tuple[tuple[int, int], ...]:
    """(bank, bytes) of the kernel's own constant banks; bank 0 holds its parameters."""
    found = []
    for bank in range(6):
        row = tables.by_name.get(f".nv.constant{bank}.{name}")
        if row is not None:
            found.append((bank, row.size))
    return tuple(found)


def _kernel_records(tables: Tables, name: str) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """Most threads a block may have, and (offset, size) of each parameter in order."""
    row = tables.by_name.get(f".nv.info.{name}")
    max_threads: int | None = None
    parameters: list[tuple[int, int, int]] = []
    for code, value in records(tables.content(row)) if row is not None else ():
        if code == n.EIATTR_KPARAM_INFO and len(value) >= 12:
            _, ordinal, offset, packed = _PARAMETER.unpack_from(value)
            parameters.append((ordinal, offset, packed >> 18))
        elif code == n.EIATTR_KPARAM_INFO_V2 and len(value) >= 12:
            _, ordinal, offset, size, _ = _PARAMETER_V2.unpack_from(value)
            parameters.append((ordinal, offset, size))
        elif code in (n.EIATTR_MAX_THREADS, n.EIATTR_REQNTID) and len(value) >= 12:
            x, y, z = _DIM.unpack_from(value)
            max_threads = x * y * z
    parameters.sort()
    return max_threads, tuple([(offset, size) for _, offset, size in parameters])
