"""What a user asks of ``slim``, and what became of each library."""

from __future__ import annotations

from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.edit.rewrite.select_images import KeepRequest
from fatpatch.gpus.devices import Device
from fatpatch.gpus.drivers import Driver

SLIMMED: Final = "slimmed"
UNCHANGED: Final = "unchanged"
LEFT_ALONE: Final = "left alone"
FAILED: Final = "failed"


class SlimRequest(NamedTuple):
    """The GPUs to keep code for, or targets to drop; what else may go; ``codec``: recompress what stays, where that gains.

    ``record``: write undo records; ``limit``: bytes that an image may unpack to; ``trace``: kernels that a run has loaded.
    """

    devices: tuple[Device, ...]
    drop: tuple[str, ...] = ()
    driver: Driver | None = None
    keep_ptx: bool = False
    strip_lto: bool = False
    codec: str | None = None
    record: bool = True
    limit: int = 512 << 20
    trace: frozenset[str] = frozenset()

    @property
    def keep(self) -> KeepRequest:
        """The same for one file."""
        return KeepRequest(drop=self.drop, devices=self.devices, keep_ptx=self.keep_ptx, strip_lto=self.strip_lto)

    @property
    def words(self) -> str:
        """``--for "H200" --strip-lto``: by which a later run knows that it goes on with this one."""
        parts = [f"--for {device.target}" for device in self.devices] + [f"--drop {target}" for target in self.drop]
        parts += ["--keep-ptx"] * self.keep_ptx + ["--strip-lto"] * self.strip_lto
        return " ".join([*parts, *([f"--recompress {self.codec}"] if self.codec else [])])


class LibraryTask(NamedTuple):
    """One library: the file to read, how it is shown, and where the result goes; None: nowhere, the plan alone is wanted."""

    path: str
    shown: str
    to: str | None
    request: SlimRequest


class LibraryResult(NamedTuple):
    """What became of one library, or would. Sizes in bytes: of the file, on disk, and of its device code.

    ``status``: one of the words above, and why. ``removed``: targets of which no image is left, with the bytes of each.
    ``lost``: targets of GPUs that some module no longer serves. ``checks``: how many held. ``lto``: bytes of code for link-time
    optimization; ``links``: whether the library links device code itself. ``recompressed``: bytes that recompression saves.
    ``kept_kernels``, ``lost_kernels``: those of a trace that it still holds, and that only removed images held.
    """

    shown: str
    status: str
    reason: str = ""
    size: int = 0
    size_after: int = 0
    disk: int = 0
    disk_after: int = 0
    code: int = 0
    code_after: int = 0
    removed: tuple[tuple[str, int], ...] = ()
    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    checks: int = 0
    lto: int = 0
    links: bool = False
    recompressed: int = 0
    kept_kernels: tuple[str, ...] = ()
    lost_kernels: tuple[str, ...] = ()

    @property
    def saved(self) -> int:
        """Bytes that are free on disk afterwards, an undo record not counted."""
        return max(self.disk - self.disk_after, 0)


def by_length(result: LibraryResult) -> LibraryResult:
    """The result where holes do not count: an archive stores them as zeros, and what unpacks it writes them."""
    return result._replace(disk=result.size, disk_after=result.size_after)
