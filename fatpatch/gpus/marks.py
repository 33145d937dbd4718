"""How images that fatpatch has made itself are told from those of a compiler: by the identifier of their entry."""

from __future__ import annotations

from typing import Final

MARK: Final = "fatpatch retarget:"
"""What the identifier of such an entry begins with; drivers do not look at it (measured: load rules, section 0)."""
