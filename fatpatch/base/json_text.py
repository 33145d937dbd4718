"""JSON from outside: whatever the text is, no exception leaves."""

from __future__ import annotations

from typing import Any


def json_object(text: str | bytes) -> dict[str, Any]:
    """The object that a text is; an empty one for another value, and for what is not JSON."""
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
