"""Runs ``fatpatch ARGS`` in forks of one process that has imported the rooms already: most commands of the tests take less time than
Python's start and these imports. Each run has a process, a working folder and standard streams of its own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

LIBRARIES = ["click", "construct", "zstandard", "lz4.block", "capstone"]


class Commands:
    """A process that forks for each command."""

    def __init__(self, root: Path, folder: Path) -> None:
        """``root`` holds the package; ``folder`` takes what the commands print."""
        self._streams = [folder / "stdout", folder / "stderr"]
        command = [sys.executable, __file__, str(root / "fatpatch")]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        self._server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, args: list[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        """As ``subprocess.run`` with captured text; TimeoutExpired kills the command."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        request = {
            "args": args,
            "cwd": str(cwd),
            "streams": [str(path) for path in self._streams],
            "timeout": timeout,
            "environment": dict(os.environ),
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        returncode = int(self._server.stdout.readline())
        stdout, stderr = (path.read_text("utf-8") for path in self._streams)
        if returncode == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(args, timeout, stdout, stderr)
        return subprocess.CompletedProcess(args, returncode, stdout, stderr)

    def close(self) -> None:
        """End the process."""
        self._server.communicate()


def _import_all(package: Path) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for path in sorted(package.rglob("*.py")):
        if path.name != "__main__.py":
            importlib.import_module(".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"))
    gc.freeze()


def _next_command() -> dict[str, Any]:
    """Returns in a fork, with its request; in the first process it answers and never returns."""
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        child = os.fork()
        if not child:
            return request
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    sys.exit()


def _become(request: dict[str, Any]) -> None:
    """Take the environment, the folder, the streams and the arguments of a request; be killed when its time is over."""
    signal.setitimer(signal.ITIMER_REAL, request["timeout"])
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    streams = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for path in request["streams"]]
    for number, descriptor in enumerate([nothing, *streams]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    sys.argv = ["fatpatch", *request["args"]]
    sys.path[0] = request["cwd"]


if __name__ == "__main__":
    _import_all(Path(sys.argv[1]))
    _become(_next_command())
    runpy.run_module("fatpatch", run_name="__main__", alter_sys=True)
