"""How a load ends: with success, with a CUresult, with a crash or a hang of the process; and the numbers that occur."""

from __future__ import annotations

from typing import Final, NamedTuple

INVALID_IMAGE: Final = 200
NO_IMAGE: Final = 209
INVALID_PTX: Final = 218
UNSUPPORTED_PTX: Final = 222
JIT_DISABLED: Final = 223
INVALID_SOURCE: Final = 300
NOT_FOUND: Final = 500
UNKNOWN: Final = 999
CRASH: Final = "crash"
HANG: Final = "hang"


class Fate(NamedTuple):
    """``error`` is a CUresult, ``outcome`` "crash" or "hang"; neither when the load succeeds. ``reason`` says why it does not."""

    error: int | None = None
    outcome: str | None = None
    reason: str = ""

    @property
    def good(self) -> bool:
        return self.error is None and self.outcome is None
