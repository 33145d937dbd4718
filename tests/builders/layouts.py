"""Layouts parsed and built by construct: plain fields, or a FormatError with offset and field."""

from __future__ import annotations

from typing import Any

from construct import Construct, ConstructError

from fatpatch.base.errors import FormatError


def parse_layout(layout: Construct, data: bytes, *, offset: int = 0, locator: str = "") -> Any:
    """The fields of ``data`` by ``layout``; ``offset`` is where the bytes start in their file, for the error."""
    try:
        return layout.parse(data)
    except ConstructError as error:
        steps = [step.strip() for step in (error.path or "").replace("(parsing)", "").split("->")]
        field = ".".join(dict.fromkeys(step for step in steps if step)) or None
        message = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise FormatError(message, locator=locator, offset=offset, field=field) from error


def build_layout(layout: Construct, fields: Any) -> bytes:
    """The bytes of ``fields`` by ``layout``; FormatError when they do not fit it."""
    try:
        result: bytes = layout.build(fields)
    except ConstructError as error:
        raise FormatError(f"cannot be written: {str(error).splitlines()[-1]}", field=error.path) from error
    return result
