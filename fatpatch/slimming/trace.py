"""The kernels that a run has loaded, one name a line, and which of them only the removed images of a library hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.edit.rewrite.rewrite_modules import Change
from fatpatch.gpucode.demangle import readable
from fatpatch.model.kinds import ImageKind
from fatpatch.model.tree import ImageEntry, Node
from fatpatch.scan.coverage import payloads_below
from fatpatch.verdicts.facts import FactsReader

_MAX_TRACE: Final = 64 << 20
_LOADABLE: Final = frozenset({ImageKind.SASS, ImageKind.PTX, ImageKind.HSACO})


class TracedKernels(NamedTuple):
    """Of the names of a trace, as it spells them: those that a library still holds, and those that only removed images held."""

    kept: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def read_trace(path: str) -> frozenset[str]:
    """The names in a file, mangled or not, one a line; # begins a remark. InputError when it cannot be read or holds none."""
    try:
        if os.path.getsize(path) > _MAX_TRACE:
            raise InputError(f"has more than {_MAX_TRACE >> 20} MiB", locator=path)
        with open(path, encoding="utf-8", errors="replace") as stream:
            names = frozenset(name for line in stream if (name := line.strip()) and not name.startswith("#"))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", locator=path) from error
    if not names:
        raise InputError("names no kernel", locator=path, hint="one kernel a line, mangled or not")
    return names


def traced(node: Node, changes: Iterable[Change], names: frozenset[str], limit: int) -> TracedKernels:
    """What becomes of the named kernels of a library when these changes are made."""
    reader = FactsReader(limit, node.size)
    changed = {change.payload.locator: change for change in changes}
    kept, gone = set[str](), set[str]()
    for holder, payload in payloads_below(node):
        change = changed.get(payload.locator)
        kept.update(_named(holder, payload.images if change is None else change.kept, names, reader))
        gone.update(_named(holder, () if change is None else change.dropped, names, reader))
    return TracedKernels(tuple(sorted(kept)), tuple(sorted(gone - kept)))


def _named(holder: Node, images: Iterable[ImageEntry], names: frozenset[str], reader: FactsReader) -> Iterator[str]:
    """The names of a trace that images hold, as the trace spells them."""
    if holder.source is None:
        return
    for image in images:
        if image.kind not in _LOADABLE:
            continue
        for name in reader.names(holder.source, image) or ():
            spelled = name if name in names else readable(name)
            if spelled in names:
                yield spelled
