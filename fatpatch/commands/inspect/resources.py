"""The table of what each kernel takes on each target: ``inspect --resources``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from fatpatch.api.kernels import own_shared
from fatpatch.base.words import columns, safe
from fatpatch.model.target import Target, target_key

if TYPE_CHECKING:
    from fatpatch.gpucode.rows import AmdUsage, KernelFacts

_CUDA = ("target", "registers", "shared", "stack", "constant", "parameters", "threads", "code")
_AMD = ("target", "VGPRs", "AGPRs", "SGPRs", "spilled", "LDS", "scratch", "kernargs", "wavefront", "threads", "code")


def resource_lines(found: Iterable[tuple[str, KernelFacts]], show: Callable[[str], str]) -> Iterator[str]:
    """One line a kernel and target, sorted by kernel; a number that the image does not tell is a dash. Sizes are bytes."""
    rows = sorted(found, key=lambda item: (item[1].name, target_key(item[0])))
    if not rows:
        return
    amd = any(row.amd is not None for _, row in rows)
    header = [*(_AMD if amd else _CUDA), "kernel"]
    more = ", spilled: VGPRs + SGPRs" if amd else ""
    if not amd and any(own_shared(row.shared_bytes, Target(target).sm) != row.shared_bytes for target, row in rows):
        more = "; shared in brackets: as the driver counts it, without what the system reserves"
    yield f"resources (bytes; registers of a thread{more})"
    body = [[target, *_cells(row, target, amd=amd), safe(show(row.name))] for target, row in rows]
    yield from (f"  {line}" for line in columns(header, body, left=frozenset({0, len(header) - 1})))


def _cells(row: KernelFacts, target: str, *, amd: bool) -> list[str]:
    _, registers, shared, local, banks, threads, parameters, code, usage = row
    if amd:
        return [_told(registers), *_amd(usage, shared, local), _told(threads), _told(code)]
    constant = None if banks is None else dict(banks).get(0, 0)
    size = None if parameters is None else max((offset + size for offset, size in parameters), default=0)
    own = own_shared(shared, Target(target).sm)
    both = _told(shared) if own == shared else f"{_told(shared)} ({own})"
    return [_told(registers), both, *map(_told, (local, constant, size, threads, code))]


def _amd(usage: AmdUsage | None, shared: int | None, local: int | None) -> list[str]:
    if usage is None:
        return ["-", "-", "-", _told(shared), _told(local), "-", "-"]
    spilled = f"{_told(usage.vgpr_spills)}+{_told(usage.sgpr_spills)}"
    return [
        _told(usage.agprs),
        _told(usage.sgprs),
        spilled,
        _told(shared),
        _told(local) + ("+" if usage.dynamic_stack else ""),
        _told(usage.kernarg_size),
        _told(usage.wavefront),
    ]


def _told(value: int | None) -> str:
    return "-" if value is None else str(value)
