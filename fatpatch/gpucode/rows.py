"""What an image says of a kernel."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple


class Argument(NamedTuple):
    """One argument of an AMD kernel as its metadata lists it; ``kind`` such as global_buffer, by_value, hidden_block_count_x."""

    offset: int
    size: int
    kind: str
    name: str | None

    @property
    def hidden(self) -> bool:
        """Whether the runtime fills it in, not the program."""
        return self.kind.startswith("hidden_")


class AmdUsage(NamedTuple):
    """What only AMD kernels declare. Registers are per lane (accumulation, scalar), sizes bytes, ``wavefront`` lanes."""

    agprs: int | None
    sgprs: int | None
    vgpr_spills: int | None
    sgpr_spills: int | None
    kernarg_size: int | None
    kernarg_align: int | None
    wavefront: int | None
    dynamic_stack: bool
    arguments: tuple[Argument, ...]


_RESERVED, _FIRST_RESERVED = 1024, 90


def own_shared(size: int | None, arch: int | None) -> int | None:
    """Static shared memory of a CUDA kernel as the driver counts it, in bytes.

    From sm_90 on the section holds 1,024 bytes more, which the system reserves (measured: 435 fatbins on an H200, driver 580; nvcc 13.0
    and ptxas 12.9).
    """
    reserved = arch is not None and arch >= _FIRST_RESERVED and size is not None and size >= _RESERVED
    return size - _RESERVED if size is not None and reserved else size


class KernelFacts(NamedTuple):
    """One entry function of an image and the resources it declares; what the image does not tell is None.

    ``registers``: of a thread, VGPRs of an AMD kernel; ``shared_bytes``: static, LDS of an AMD kernel; ``local_bytes``: stack, scratch of
    a work item of an AMD kernel; ``constant_banks``: (bank, bytes); ``max_threads``: of a block; ``parameters``: (offset, size).
    """

    name: str
    registers: int | None = None
    shared_bytes: int | None = None
    local_bytes: int | None = None
    constant_banks: tuple[tuple[int, int], ...] | None = None
    max_threads: int | None = None
    parameters: tuple[tuple[int, int], ...] | None = None
    code_size: int | None = None
    amd: AmdUsage | None = None
