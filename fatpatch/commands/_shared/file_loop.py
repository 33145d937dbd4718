"""The loop over files of a command: what cannot be read is an error on stderr, and the next file follows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from fatpatch.base.errors import FatpatchError, FormatError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import file_name
from fatpatch.commands._shared.console import print_error
from fatpatch.commands._shared.options import print_diagnostics, worse
from fatpatch.commands._shared.progress import Progress
from fatpatch.model.tree import Diagnostic, Node
from fatpatch.remote.inputs import Input
from fatpatch.scan.walk import Progress as OnRead
from fatpatch.scan.walk import inspected


class FileLoop:
    """``code`` is the exit code so far, ``errors`` are those of files that could not be read."""

    def __init__(self) -> None:
        self.code = 0
        self.errors: list[FatpatchError] = []

    @contextmanager
    def file(self, path: str = "", shown: str = "") -> Iterator[None]:
        """One file, whose errors end with it; they speak of it by ``shown``, where that is given."""
        try:
            yield
        except FatpatchError as error:
            if shown:
                error.speak_of(path, shown)
            self.failed(error)

    def each(self, files: Iterable[Input], limits: Limits, kind: str | None, work: Callable[[str, Node, OnRead], None]) -> None:
        """Read every file and call ``work`` with how it is shown, its tree, and what is told where the work is."""
        for path, shown in ((each.path, each.shown) for each in files):
            with (
                self.file(path, shown),
                Progress(shown) as progress,
                inspected(path, name=file_name(shown), limits=limits, kind=kind, progress=progress.at) as node,
            ):
                work(shown, node, progress.at)

    def failed(self, error: FatpatchError) -> None:
        """Print why something could not be read; the rest goes on."""
        self.errors.append(error)
        self.found(error.exit_code)
        print_error(error)

    def found(self, code: int) -> None:
        """What a file came to, as an exit code."""
        self.code = worse(self.code, code)

    def tell(self, diagnostics: Sequence[Diagnostic]) -> None:
        """Print what is damaged or was not read; damage is an exit code."""
        print_diagnostics(diagnostics)
        if any(item.level == "error" for item in diagnostics):
            self.found(FormatError.exit_code)
