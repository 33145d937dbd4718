"""Addresses: which words are one, and how one is shown. What may be a secret in it is never shown."""

from __future__ import annotations

import re
from typing import Final

HTTP: Final = frozenset({"http", "https"})
OTHERS: Final = frozenset({"s3", "gs", "gcs", "hf", "zip", "abfs", "az"})
"""Schemes of fsspec, for which the extra [remote] is needed."""

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):(?://|:)", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/?#]*@|[?#].*\Z", re.DOTALL)


def scheme_of(text: str) -> str | None:
    """``https`` of an address; None for a path. ``C:\\x`` and names with a colon are paths."""
    found = _SCHEME.match(text)
    return found[1].lower() if found else None


def shown_address(text: str) -> str:
    """The address without user, password, query and fragment."""
    return _SECRET.sub("", text)
