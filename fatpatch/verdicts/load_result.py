"""How a load ends: with success, with a CUresult, with a crash or a hang of the process; and the numbers that occur."""

from __future__ import annotations

from typing import Final

from fatpatch.base.records import NamedTuple
from fatpatch.gpus.selection import JIT_DISABLED as JIT_DISABLED
from fatpatch.gpus.selection import NO_IMAGE as NO_IMAGE
from fatpatch.gpus.selection import UNKNOWN_ERROR as UNKNOWN_ERROR

INVALID_IMAGE: Final = 200
INVALID_PTX: Final = 218
UNSUPPORTED_PTX: Final = 222
INVALID_SOURCE: Final = 300
NOT_FOUND: Final = 500
CRASH: Final = "crash"


class LoadResult(NamedTuple):
    """``error`` is a CUresult, ``outcome`` "crash" or "hang"; neither when the load succeeds. ``reason`` says why it does not."""

    error: int | None = None
    outcome: str | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.error is None and self.outcome is None
