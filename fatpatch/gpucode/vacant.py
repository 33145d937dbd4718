"""Modules that can have no kernel, by the sizes of their images alone."""

from __future__ import annotations

from typing import Final

from fatpatch.model.kinds import ImageKind
from fatpatch.model.tree import ImageEntry, Payload

_NO_KERNEL: Final = 1400
"""Bytes that a cubin of one empty kernel has at least; smaller images hold variables or nothing (measured with ptxas 11.8 to 13.0)."""
_NO_ENTRY: Final = 200
"""Bytes of PTX that is a head alone: .version, .target and .address_size with their comments."""


def is_without_kernels(payload: Payload) -> bool:
    """Whether no image of a module can have a kernel."""
    return bool(payload.images) and all(map(_too_small, payload.images))


def _too_small(image: ImageEntry) -> bool:
    size = image.size if image.size is not None else image.stored_size
    most = {ImageKind.SASS: _NO_KERNEL, ImageKind.PTX: _NO_ENTRY}.get(image.kind)
    return size is not None and most is not None and size < most
