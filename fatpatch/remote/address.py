"""Addresses: which words are one, and how one is shown. What may be a secret in it is never shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from fatpatch.base.errors import InputError
from fatpatch.base.patterns import lazy_pattern

if TYPE_CHECKING:
    from urllib.parse import SplitResult

HTTP: Final = frozenset({"http", "https"})
OTHERS: Final = frozenset({"s3", "gs", "gcs", "hf", "zip", "abfs", "az"})
"""Schemes of fsspec, for which the extra [remote] is needed."""

_SCHEME = lazy_pattern(r"([a-z][a-z0-9+.-]*):(?://|:)", re.IGNORECASE)
_SECRET = lazy_pattern(r"(?<=://)[^/?#]*@|[?#].*\Z", re.DOTALL)

_AUTHORITY = lazy_pattern(r"([a-z][a-z0-9+.-]*://)([^/?#]*)", re.IGNORECASE)
_NO_PORT = lazy_pattern(r"(?<!\]):(?!\d{0,5}\Z)[^\]]*\Z")


def scheme_of(text: str) -> str | None:
    """``https`` of an address; None for a path. ``C:\\x`` and names with a colon are paths."""
    found = _SCHEME.match(text) if ":" in text else None
    return found[1].lower() if found else None


def shown_address(text: str) -> str:
    """The address without user, password, query and fragment; of one whose password holds a slash, all up to the last @ is left out."""
    found = _AUTHORITY.match(text)
    if found is not None and "@" not in found[2] and _NO_PORT.search(found[2]) and "@" in text:
        text = found[1] + text.rpartition("@")[2]
    return _SECRET.sub("", text)


def parts_of(url: str, shown: str) -> tuple[SplitResult, str | None]:
    """The parts of an address without its user and password, and those as a header."""
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError as error:
        raise InputError("is not a URL", locator=shown, hint="write for example https://host/file.whl") from error
    clean = all(33 <= ord(char) < 127 for char in url)
    if scheme not in HTTP or not host or not clean:
        raise InputError("is not a URL that can be read", locator=shown, hint="write for example https://host/file.whl, spaces as %20")
    authorization = None
    if parts.username is not None:
        import base64

        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    netloc = f"[{host}]" if ":" in host else host
    return parts._replace(scheme=scheme, netloc=f"{netloc}:{port}" if port else netloc, fragment=""), authorization
