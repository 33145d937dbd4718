"""Whether an image holds what only debuggers and profilers want: debug information (-G, -g), line tables (-lineinfo)."""

from __future__ import annotations

import re

from fatpatch.base.patterns import lazy_pattern
from fatpatch.model.kinds import PTX_TEXTS

_LOCATIONS = lazy_pattern(rb"^[ \t]*\.loc[ \t]+\d", re.MULTILINE)
_DEBUG_TARGET = lazy_pattern(rb"^[ \t]*\.target[^\n]{0,200}\bdebug\b", re.MULTILINE)


def debug_kinds(kind: str, data: bytes) -> frozenset[str]:
    """``debug`` and ``lineinfo``, as far as the bytes hold them; section names stand in an ELF file's string table."""
    if kind in PTX_TEXTS:
        debug, lines = _DEBUG_TARGET.search(data) is not None, _LOCATIONS.search(data) is not None
    else:
        debug = b"\0.debug_info\0" in data
        lines = b"\0.debug_line\0" in data or b"\0.nv_debug_line_sass\0" in data
    return frozenset(name for name, there in (("debug", debug), ("lineinfo", lines)) if there)
