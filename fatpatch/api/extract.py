"""Images, whole fatbins and archive members written to a folder."""

from __future__ import annotations

import os

from fatpatch.base.limits import Limits
from fatpatch.base.records import NamedTuple
from fatpatch.base.writing import make_folder
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import Diagnostic
from fatpatch.scan.coverage import all_diagnostics
from fatpatch.scan.extraction import IMAGE_KINDS, INDEX, MEMBER, WHOLE, Extracted, ExtractRequest, extract
from fatpatch.scan.walk import Progress, inspected

__all__ = ["INDEX", "KINDS", "ExtractRequest", "ExtractedFiles", "extracted"]

KINDS = (*IMAGE_KINDS, WHOLE, MEMBER)
"""What can be extracted."""


class ExtractedFiles(NamedTuple):
    """What was written, and what could not be read."""

    files: tuple[Extracted, ...]
    diagnostics: tuple[Diagnostic, ...]


def extracted(
    path: str, shown: str, request: ExtractRequest, directory: str, limits: Limits, *, replace: bool, progress: Progress | None = None
) -> ExtractedFiles:
    """Write what is asked for below ``directory``, which is made. EditError when a file is there and ``replace`` is false."""
    diagnostics = Diagnostics()
    name, everything = os.path.basename(shown), MEMBER in request.kinds
    with inspected(path, name=name, limits=limits, everything=everything, progress=progress) as node:
        make_folder(directory)
        files = tuple(extract(node, request, directory, limit=limits.image, replace=replace, diagnostics=diagnostics))
        return ExtractedFiles(files, (*all_diagnostics(node), *diagnostics.finish()))
