"""Which files running processes have mapped (Linux, proc(5)): those are left alone."""

from __future__ import annotations

import os
import sys

_MAX_MAPS = 16 << 20


def mapped_below(root: str) -> frozenset[str]:
    """The real paths of files below a folder that some process maps, as far as this user may see."""
    if sys.platform != "linux":
        return frozenset()
    found: set[str] = set()
    prefix = root.rstrip("/") + "/"
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/maps", encoding="utf-8", errors="surrogateescape") as stream:
                text = stream.read(_MAX_MAPS)
        except OSError:
            continue
        if prefix in text:
            found.update(path for line in text.splitlines() if (path := line[line.find("/") :] if "/" in line else "").startswith(prefix))
    return frozenset(found)
