"""What ``slim`` leaves beside libraries that it made smaller: for which GPUs they are now."""

from __future__ import annotations

from typing import Any

from fatpatch.base.records import NamedTuple


class SlimMark(NamedTuple):
    """The GPUs (names and targets) that were kept, or the targets that were removed; when; and the files, each with its size then."""

    targets: tuple[str, ...]
    gpus: tuple[str, ...]
    dropped: tuple[str, ...]
    date: str
    files: tuple[tuple[str, int], ...] = ()

    @property
    def words(self) -> str:
        """``built for sm_90 only (slimmed for H200 on 2026-11-29)``. Names are a file's: hostile text."""
        when = f" on {self.date}" if self.date else ""
        if self.targets:
            return f"built for {', '.join(self.targets)} only (slimmed for {', '.join(self.gpus) or 'it'}{when})"
        without = ", ".join(self.dropped) or "code that nothing here loads"
        return f"built without {without} (slimmed{when})"

    def document(self) -> dict[str, Any]:
        """As JSON, without the files."""
        return {"targets": list(self.targets), "gpus": list(self.gpus), "dropped": list(self.dropped), "date": self.date}
