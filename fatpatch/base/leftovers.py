"""Temporary files of runs that were killed: their names hold the process, and the next run removes those whose process is gone."""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import suppress

from fatpatch.base.patterns import lazy_pattern

_OF_PROCESS = lazy_pattern(r"-p(\d{1,10})-")


def prefix_for(path: str) -> str:
    """How the name of a temporary neighbour of the file at ``path`` begins."""
    return f"{_stem(path)}-p{os.getpid()}-"


def folder_prefix() -> str:
    """How the name of a temporary folder of this process begins."""
    return f"fatpatch-p{os.getpid()}-"


def remove_neighbours(path: str) -> None:
    """Remove what killed runs have left beside the file at ``path``."""
    _sweep(os.path.dirname(path) or ".", f"{_stem(path)}-p")


def remove_files(folder: str) -> None:
    """Remove what killed runs have left beside any file of ``folder``."""
    _sweep(folder, ".fatpatch-")


def remove_folders(folder: str) -> None:
    """Remove the temporary folders of killed runs in ``folder``."""
    _sweep(folder, "fatpatch-p")


def _stem(path: str) -> str:
    return f".fatpatch-{zlib.crc32(os.path.basename(path).encode('utf-8', 'surrogateescape')):08x}"


def _sweep(folder: str, start: str) -> None:
    with suppress(OSError):
        for entry in os.scandir(folder):
            found = _OF_PROCESS.search(entry.name) if entry.name.startswith(start) else None
            if found is None or _alive(int(found[1])):
                continue
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    import shutil

                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _alive(process: int) -> bool:
    """Whether a process runs; where the system does not tell, it does, and its files stay."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return not _ended(process)


def _ended(process: int) -> bool:
    """Whether a process has ended and waits for its parent to notice, which the first process of a container may never do (Linux)."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stream:
            return stream.read(4096).rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except (OSError, IndexError):
        return False
