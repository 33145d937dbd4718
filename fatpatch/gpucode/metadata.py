"""Msgpack maps in GPU files, read within limits: the metadata of AMD code objects, the contents of kernel packs."""

from __future__ import annotations

from typing import Any

from fatpatch.base.errors import FormatError, LimitError

_CONTAINER_CODES = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))  # fixmap, fixarray; array and map of 16 and 32 bits
_MAX_BYTES = 16 << 20
_MAX_CONTAINERS = 400_000


def unpacked(data: bytes, field: str) -> dict[str, Any]:
    """The map that ``data`` is; FormatError that names ``field`` when it is damaged, LimitError when it is too large."""
    import msgpack

    containers = len(data) - len(data.translate(None, _CONTAINER_CODES))
    if len(data) > _MAX_BYTES or containers > _MAX_CONTAINERS:
        raise LimitError(f"{len(data):#x} bytes with {containers} maps and lists", field=field)
    try:
        document = msgpack.unpackb(data, strict_map_key=False, max_array_len=_MAX_CONTAINERS, max_map_len=_MAX_CONTAINERS)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise FormatError(f"is damaged: {error}", field=field) from error
    return document if isinstance(document, dict) else {}
