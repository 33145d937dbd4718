"""LLVM's own tools as oracles: where they are, and the metadata of code objects as llvm-readelf prints it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

FOLDERS = ("/usr/lib/llvm-22/bin", "/usr/lib/llvm-19/bin", "/usr/lib/llvm-16/bin", "/usr/lib/llvm-14/bin")
_LINE = re.compile(r"^( *)(- )?(\.?[\w.]+|'[^']*'):(?: +(.*))?$")


def tool(name: str) -> str | None:
    """The newest of an LLVM tool that is installed."""
    return next((path for folder in FOLDERS if (path := shutil.which(name, path=folder))), None) or shutil.which(name)


def kernels_by_readelf(path: Path, readelf: str) -> list[dict[str, object]]:
    """The kernels of a code object, their arguments under ``.args``, by llvm-readelf --notes."""
    text = subprocess.run([readelf, "--notes", str(path)], capture_output=True, text=True, check=True).stdout
    kernels: list[dict[str, object]] = []
    current: dict[str, object] = {}
    inside = False
    for line in text.splitlines():
        if line.strip() == "amdhsa.kernels:" or line.strip().startswith("amdhsa.kernels:"):
            inside = True
            continue
        if not inside:
            continue
        found = _LINE.match(line)
        if found is None or (len(found[1]) == 0 and not found[2]):
            inside = found is None and not line.startswith("...")
            continue
        depth, dash, key, value = len(found[1]), bool(found[2]), found[3], found[4]
        if dash and depth <= 2:
            current = {".args": []}
            kernels.append(current)
        arguments = current[".args"]
        assert isinstance(arguments, list)
        if depth >= 6:
            if dash:
                arguments.append({})
            arguments[-1][key] = _value(value)
        elif key != ".args":
            current[key] = _value(value)
    return kernels


def _value(text: str | None) -> object:
    text = (text or "").strip().strip("'")
    return int(text) if re.fullmatch(r"-?\d+", text) else text
