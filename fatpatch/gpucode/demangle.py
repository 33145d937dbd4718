"""Demangled names, by LLVM's demangler from a maintained wheel; its absence costs the readable name, nothing else.

A hostile name of a few hundred bytes can demangle to gigabytes, each substitution doubling the one before, and native code
cannot be interrupted. Names with many substitutions are therefore left to a child process with little memory and little time:
this file, run as a script. Windows cannot wait for a pipe that way; there such names stay mangled.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_MAX_NAME = 16384
_MAX_RESULT = 1 << 17
_SAFE_SUBSTITUTIONS = 20
_SYCL = "typeinfo name for "
_SUBSTITUTION = r"[ST][0-9A-Z]*_"
_CHILD_MEMORY = 512 << 20
_CHILD_SECONDS = 3.0


@functools.lru_cache(maxsize=65536)
def demangle(name: str) -> str | None:
    """``k(int*)`` of ``_Z1kPi``; None for a name that is not mangled, that no demangler reads, or that unfolds without end."""
    if not name.startswith("_Z") or len(name) > _MAX_NAME or not (name.isascii() and name.isprintable()):
        return None
    many = len(re.findall(_SUBSTITUTION, name)) > _SAFE_SUBSTITUTIONS
    found = _child.demangle(name) if many else _demangle(name)
    return found if found is None else found.removeprefix(_SYCL)  # a SYCL kernel is named by its type


def readable(name: str) -> str:
    """The name as people write it; as it is where it cannot be demangled."""
    return demangle(name) or name


def _demangle(name: str) -> str | None:
    try:
        import pycxxfilt
    except ImportError:
        return _by_pydemumble(name)
    try:
        result: str | None = pycxxfilt.demangle(name)
    except (ValueError, MemoryError):
        return None
    return result if result is not None and len(result) <= _MAX_RESULT else None


def _by_pydemumble(name: str) -> str | None:
    try:
        import pydemumble
    except ImportError:
        return None
    result: str = pydemumble.demangle(name)
    return result if 0 < len(result) <= _MAX_RESULT else None


class _Child:
    """A process that demangles on request, a line a name; one that takes too long or dies is replaced."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def demangle(self, name: str) -> str | None:
        if sys.platform == "win32":
            return None
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(name.encode() + b"\n")
            process.stdin.flush()
            answer = self._line(process.stdout.fileno())
        except OSError:
            answer = b""
        if not answer:
            process.kill()
            process.wait()
            self._process = None
        return answer.decode("utf-8", "backslashreplace").rstrip("\n") or None

    def _start(self) -> subprocess.Popen[bytes]:
        import subprocess

        command = [sys.executable, __file__]
        self._process = subprocess.Popen(  # noqa: S603 (this very file)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self._process

    @staticmethod
    def _line(descriptor: int) -> bytes:
        """One line of the answer; b"" when it does not come in time."""
        import select

        answer = b""
        while not answer.endswith(b"\n"):
            ready, _, _ = select.select([descriptor], [], [], _CHILD_SECONDS)
            piece = os.read(descriptor, 1 << 16) if ready else b""
            if not piece:
                return b""
            answer += piece
        return answer


def _serve() -> None:
    """The child: answer until its input ends. A name that takes all memory or ten seconds ends it."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_CHILD_MEMORY, _CHILD_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # a system without limits: the parent's patience still is one
    for line in sys.stdin.buffer:
        answer = _demangle(line.decode().rstrip("\n")) or ""
        sys.stdout.buffer.write(answer.encode() + b"\n")
        sys.stdout.buffer.flush()


_child = _Child()

if __name__ == "__main__":
    _serve()
