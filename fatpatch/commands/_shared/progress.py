"""A progress line on stderr: only on a terminal, only after a second, gone when done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from fatpatch.commands._shared import quiet

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

OnRead = Callable[[str, int, int], None]
_PATIENCE = 1.0
_INTERVAL = 0.1


class Progress:
    """Shows what is being read now; a no-op where stderr is no terminal."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._bar: RichProgress | None = None
        self._active = sys.stderr.isatty() and not quiet.asked()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, stack: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def at(self, locator: str, done: int, total: int) -> None:
        """``done`` of ``total`` units are read (0: unknown); ``locator`` is where."""
        now = time.monotonic()
        if not self._active or now - self._start < _PATIENCE or now - self._last < _INTERVAL:
            return
        self._last = now
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            # No refresh thread: worker processes are forked while this is on the screen.
            self._bar = RichProgress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                auto_refresh=False,
            )
            self._bar.start()
            self._bar.add_task(self._title)
        task = self._bar.task_ids[0]
        self._bar.update(task, description=locator[-60:], completed=done, total=total or None, refresh=True)


@contextmanager
def watched(title: str) -> Iterator[OnRead]:
    """A line of progress for one file: what is called while it is read."""
    with Progress(title) as progress:
        yield progress.at
