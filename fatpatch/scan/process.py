"""What a running process has mapped (Linux, proc(5)): its program and every library with code, of a container's process too."""

from __future__ import annotations

import os
import sys
from typing import Final

from fatpatch.base.errors import InputError, UnsupportedError
from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.scan.distributions import Distribution
from fatpatch.scan.ledgers import LIBRARY

_MAP: Final = lazy_pattern(r"([0-9a-f]{1,16}-[0-9a-f]{1,16}) ([r-][w-][x-][sp]) [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ (\d+) +(/.*)")
_DELETED: Final = " (deleted)"
_MOST: Final = 16 << 20
_DIGITS: Final = 10


class _Mapped(NamedTuple):
    """A mapped file: as which range, and whether its name leads to it no more."""

    span: str
    deleted: bool


def process(text: str) -> Distribution:
    """The files that process NUMBER has mapped, as one unit. InputError for no such process and for one of somebody else."""
    shown = f"pid:{text[:20]}"
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
        raise InputError("expected the number of a process", locator=shown, hint="such as pid:1234")
    if not sys.platform.startswith("linux"):
        raise UnsupportedError("processes are read on Linux only", locator=shown, hint="name the program and its libraries instead")
    home = f"/proc/{int(text)}"
    mapped = mapped_files(_maps(home, shown))
    if not mapped:
        raise InputError("has no files mapped (a kernel thread, or one that has ended)", locator=shown)
    root = f"{home}/root"
    files, moved, unread = [], [], []
    for path, where in mapped.items():
        files.append(path.lstrip("/"))
        if not where.deleted:
            if not os.path.isfile(f"{root}{path}"):
                unread.append((files.pop(), "is mapped, and is not there any more or may not be read: run as root"))
            continue
        still = f"{home}/map_files/{where.span}"
        if os.access(still, os.R_OK):
            moved.append((files[-1], still))
        else:
            why = "was deleted or replaced since the process began: what is in its memory is not read; restart it, or run as root"
            unread.append((files.pop(), why))
    return Distribution(f"pid:{int(text)}", _name(home), root, tuple(files), "", "process", tuple(moved), tuple(unread))


def mapped_files(maps: str) -> dict[str, _Mapped]:
    """The files of ``/proc/N/maps`` that are programs or libraries, each once, in their order."""
    found: dict[str, _Mapped] = {}
    for line in maps.splitlines():
        match = _MAP.fullmatch(line)
        if match is None:
            continue
        span, rights, inode, path = match.groups()
        path = path.replace("\\012", "\n")  # the one character that the kernel escapes
        deleted = path.endswith(_DELETED)
        path = path.removesuffix(_DELETED)
        if inode != "0" and path not in found and ("x" in rights or LIBRARY.search(path)) and not path.startswith(("/dev/", "/memfd:")):
            found[path] = _Mapped(span, deleted)
    return found


def _maps(home: str, shown: str) -> str:
    try:
        with open(f"{home}/maps", encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read(_MOST)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise InputError("there is no such process", locator=shown, hint="look with ps") from error
    except OSError as error:
        hint = "run fatpatch as the same user or as root; ptrace may be restricted (kernel.yama.ptrace_scope)"
        raise InputError(f"its maps cannot be read: {error.strerror}", locator=shown, hint=hint) from error


def _name(home: str) -> str:
    try:
        with open(f"{home}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read(64).strip()
    except OSError:
        return ""
