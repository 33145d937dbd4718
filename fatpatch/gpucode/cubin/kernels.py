"""The kernels of a cubin and the resources they declare, equal to ``cuobjdump -res-usage`` (tested against it)."""

from __future__ import annotations

import struct

from fatpatch.base.errors import LimitError
from fatpatch.binfmt.elf.elf64 import INFO, SIZE, name_budget
from fatpatch.formats import numbers as n
from fatpatch.gpucode.cubin.tables import SHT_CUDA_INFO, Tables, records
from fatpatch.gpucode.rows import KernelFacts

_UNKNOWN_STACK = 0xFFFFFFFF
_FUNC = 2
_MAX_PARAMETERS = 8192
_PAIR = struct.Struct("<II")
_GLOBAL = struct.Struct("<xBxxII")
_UNIFORM = ((0, n.EIFMT_SVAL), (2, 8), (3, 0))
"""What each record of eight bytes begins with: its form, and the two bytes of its size."""
_PARAMETER = struct.Struct("<IHHI")
_PARAMETER_V2 = struct.Struct("<IHHHH")
_DIM = struct.Struct("<III")


def cubin_kernels(tables: Tables, *, detail: bool = True) -> list[KernelFacts]:
    """One row for each entry function: STT_FUNC symbols marked STO_CUDA_ENTRY.

    Without ``detail`` memory, launch bounds, parameters and constant banks stay None: they take most of the time.
    """
    symbols, strings = tables.symbols()
    by_name, rows = tables.by_name() if detail else {}, tables.rows
    registers, stacks = _global_records(tables, detail)
    banks = _constant_banks(tables) if detail else {}
    high_byte = not tables.identity.new_layout
    kernels: list[KernelFacts] = []
    seen: set[bytes] = set()
    budget = name_budget(len(strings))
    for index, (name_at, info, other, section, _, size) in enumerate(symbols):
        if not other & n.STO_CUDA_ENTRY or info & 0xF != _FUNC or other & 0xE0 == 0xA0:
            continue
        name = strings[name_at : strings.find(b"\0", name_at)]
        budget -= len(name)
        if budget < 0:
            raise LimitError("the symbol names overlap without end", field="st_name")
        if name in seen:
            continue
        seen.add(name)
        count = registers.get(index)
        if count is None and high_byte and section < len(rows):
            count = rows[section][INFO] >> 24 or None
        shared = stack = max_threads = parameters = None
        if detail:
            stack = stacks.get(index, 0)
            row = by_name.get(b".nv.shared." + name)
            shared = 0 if row is None else row[SIZE]
            max_threads, parameters = _kernel_records(tables.content(by_name.get(b".nv.info." + name)))
        kernels.append(
            KernelFacts(
                name.decode("utf-8", "backslashreplace"),
                count,
                shared,
                None if stack == _UNKNOWN_STACK else stack,
                tuple(sorted(banks.get(name, ()))) if detail else None,
                max_threads,
                parameters,
                size,
            )
        )
    return kernels


def _global_records(tables: Tables, detail: bool) -> tuple[dict[int, int], dict[int, int]]:
    """Register counts and, with ``detail``, stack sizes by symbol index, from the module-wide .nv.info."""
    data = tables.content(tables.find(SHT_CUDA_INFO, b".nv.info"))
    count, rest = divmod(len(data), _GLOBAL.size)
    if not rest and all(data[at :: _GLOBAL.size].count(value) == count for at, value in _UNIFORM):  # as every toolkit so far writes it
        rows = _GLOBAL.iter_unpack(data)
        if not detail:
            return {symbol: number for code, symbol, number in rows if code == n.EIATTR_REGCOUNT}, {}
        registers, stacks = dict[int, int](), dict[int, int]()
        for code, symbol, number in rows:
            if code == n.EIATTR_REGCOUNT:
                registers[symbol] = number
            elif code == n.EIATTR_MIN_STACK_SIZE:
                stacks[symbol] = number
        return registers, stacks
    registers, stacks = dict[int, int](), dict[int, int]()
    for code, value in records(data):
        if code in (n.EIATTR_REGCOUNT, n.EIATTR_MIN_STACK_SIZE) and len(value) >= 8:
            symbol, number = _PAIR.unpack_from(value)
            (registers if code == n.EIATTR_REGCOUNT else stacks)[symbol] = number
    return registers, stacks


def _constant_banks(tables: Tables) -> dict[bytes, list[tuple[int, int]]]:
    """By kernel: (bank, bytes) of its own constant banks; bank 0 holds its parameters."""
    banks: dict[bytes, list[tuple[int, int]]] = {}
    for name, row in tables.by_name().items():
        if name[:12] == b".nv.constant":
            number, _, kernel = name[12:].partition(b".")
            if kernel and len(number) == 1 and number.isdigit():
                banks.setdefault(kernel, []).append((int(number), row[SIZE]))
    return banks


def _kernel_records(data: bytes) -> tuple[int | None, tuple[tuple[int, int], ...]]:
    """Most threads a block may have, and (offset, size) of each parameter in order, from .nv.info.<kernel>.

    The loop of ``records`` once more, without making the values that nobody asks for: this is the hottest code there is.
    """
    max_threads: int | None = None
    parameters: list[tuple[int, int, int]] = []
    at, end = 0, len(data) - 3
    while at < end:
        form, code = data[at], data[at + 1]
        if form != n.EIFMT_SVAL:
            if not n.EIFMT_NVAL <= form <= n.EIFMT_HVAL:
                break
            at += 4
            continue
        size = data[at + 2] | data[at + 3] << 8
        if size >= 12 and at + 16 <= len(data) and len(parameters) < _MAX_PARAMETERS:
            if code == n.EIATTR_KPARAM_INFO:
                _, ordinal, offset, packed = _PARAMETER.unpack_from(data, at + 4)
                parameters.append((ordinal, offset, packed >> 18))
            elif code == n.EIATTR_KPARAM_INFO_V2:
                _, ordinal, offset, length, _ = _PARAMETER_V2.unpack_from(data, at + 4)
                parameters.append((ordinal, offset, length))
            elif code in (n.EIATTR_MAX_THREADS, n.EIATTR_REQNTID):
                x, y, z = _DIM.unpack_from(data, at + 4)
                max_threads = x * y * z
        at += 4 + size
    parameters.sort()
    return max_threads, tuple([(offset, size) for _, offset, size in parameters])
