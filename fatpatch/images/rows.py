"""The plain tuple that image readers return for a kernel, and its way into the model."""

from __future__ import annotations

from fatpatch.model import Kernel, Parameter

KernelRow = tuple[
    str,  # name
    int | None,  # registers
    int | None,  # shared bytes
    int | None,  # local bytes (stack)
    tuple[tuple[int, int], ...] | None,  # constant banks: (bank, bytes)
    int | None,  # most threads a block may have
    tuple[tuple[int, int], ...] | None,  # parameters: (offset, size)
    int | None,  # code bytes
]


def kernel_of(row: KernelRow) -> Kernel:
    """The model's record of a row."""
    name, registers, shared, local, banks, threads, parameters, code = row
    return Kernel(
        name=name,
        registers=registers,
        shared_bytes=shared,
        local_bytes=local,
        constant_banks=banks,
        max_threads=threads,
        parameters=None if parameters is None else tuple(Parameter(offset=offset, size=size) for offset, size in parameters),
        code_size=code,
    )
