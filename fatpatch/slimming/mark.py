"""The mark of one run, and of those before it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

from fatpatch.model.slim_mark import SlimMark
from fatpatch.slimming.request import SlimRequest


def mark_of(request: SlimRequest, files: Mapping[str, int], today: str) -> SlimMark:
    """What a request makes of files, each with its new size."""
    targets = sorted({device.target for device in request.devices})
    gpus = dict.fromkeys(device.name for device in request.devices)
    dropped = (*request.drop, *(["code for link-time optimization"] if request.strip_lto else []))
    return SlimMark(tuple(targets), tuple(gpus), dropped, today, tuple(sorted(files.items())))


def joined(old: SlimMark | None, new: SlimMark, root: str) -> SlimMark | None:
    """The new mark, with the files of the old one that are as they were then; the old one where nothing changed."""
    if old is None or not new.files:
        return old or (new if new.files else None)
    files = {path: size for path, size in old.files if _size(os.path.join(root, path)) == size}
    return new._replace(files=tuple(sorted((files | dict(new.files)).items())))


def _size(path: str) -> int | None:
    with suppress(OSError):
        return os.path.getsize(path)
    return None
