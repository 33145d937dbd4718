"""Installed packages for tests: Python distributions with RECORD, conda packages with conda-meta, node packages with package.json."""

from __future__ import annotations

import json
from pathlib import Path

from builders import elf
from builders.cubin import cubin
from builders.fatbin import container, entry


def library(*archs: int, needed: bytes = b"") -> bytes:
    """A shared object with one fatbin of cubins for these architectures."""
    module = container(*(entry(cubin(arch=arch), kind=2, major=1, minor=7, arch=arch) for arch in archs))
    return elf.shared_object([(".nv_fatbin", module), (".dynstr", b"\0" + needed)])


def write(root: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def install(root: Path, name: str, version: str, files: dict[str, bytes], record: str | None = None) -> None:
    """As pip does."""
    info = root / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nText\n")
    (info / "RECORD").write_text(record if record is not None else "".join(f"{path},sha256=x,1\n" for path in files))
    write(root, files)


def conda(prefix: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """As conda does, with the package's files and its document."""
    meta = prefix / "conda-meta"
    meta.mkdir(parents=True, exist_ok=True)
    document = {"name": name, "version": version, "build": "h1_0", "files": list(files)}
    (meta / f"{name}-{version}-h1_0.json").write_text(json.dumps(document))
    write(prefix, files)


def node(modules: Path, name: str, version: str, files: dict[str, bytes]) -> None:
    """As npm does, below node_modules."""
    write(modules / name, {"package.json": json.dumps({"name": name, "version": version}).encode(), **files})
