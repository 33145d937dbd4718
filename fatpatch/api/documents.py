"""Documents as JSON has them."""

from __future__ import annotations

import json
from typing import Any


def plain(document: dict[str, Any]) -> dict[str, Any]:
    """A document as JSON has it: lists, not tuples."""
    result: dict[str, Any] = json.loads(json.dumps(document))
    return result
