"""The loop over files of a command: what cannot be read is an error on stderr, and the next file follows."""

from __future__ import annotations

from collections.abc import Sequence

from fatpatch.api.naming import UnitReader
from fatpatch.base.errors import FatpatchError, FormatError
from fatpatch.base.limits import Limits
from fatpatch.commands._shared.console import print_error
from fatpatch.commands._shared.options import print_diagnostics, worse
from fatpatch.commands._shared.progress import watched
from fatpatch.model.tree import Diagnostic


class FileLoop:
    """``code`` is the exit code so far, ``errors`` are those of files that could not be read."""

    def __init__(self) -> None:
        self.code = 0
        self.errors: list[FatpatchError] = []

    def reading(self, limits: Limits) -> UnitReader:
        """How files are read: a line of progress for each, and an error for one that cannot be."""
        return UnitReader(limits, self.failed, watched)

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
