"""A word of a command line as the shell of this system reads it."""

from __future__ import annotations

import re
import shlex
import sys

_PLAIN_ON_WINDOWS = r"[\w.,:\\/@=+*?-]+"


def shell_word(text: str, *, windows: bool = sys.platform == "win32") -> str:
    """The text, quoted where it must be: for POSIX shells, or for cmd and PowerShell, where a path has no double quote."""
    if not windows:
        return shlex.quote(text)
    return text if re.fullmatch(_PLAIN_ON_WINDOWS, text, re.ASCII) else '"' + text.replace('"', "") + '"'
