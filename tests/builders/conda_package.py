"""A .conda file: a zip of stored zstd tarballs, as conda-package-streaming writes it (conda/conda CEP "conda file format 2")."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile

import zstandard


def conda_package(name: str, version: str, build: str, files: dict[str, bytes]) -> bytes:
    """With a tarball of the files and one of what describes them; the tarballs have no size in their zstd frames, as conda's."""
    stem = f"{name}-{version}-{build}"
    paths = [
        {"_path": path, "path_type": "hardlink", "sha256": hashlib.sha256(data).hexdigest(), "size_in_bytes": len(data)}
        for path, data in files.items()
    ]
    index = {"name": name, "version": version, "build": build, "build_number": 0, "depends": [], "subdir": "linux-64"}
    info = {
        "info/index.json": json.dumps(index).encode(),
        "info/paths.json": json.dumps({"paths": paths, "paths_version": 1}).encode(),
        "info/files": "".join(f"{path}\n" for path in files).encode(),
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as package:
        package.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
        package.writestr(f"pkg-{stem}.tar.zst", _packed(files))
        package.writestr(f"info-{stem}.tar.zst", _packed(info))
    return out.getvalue()


def unpacked(package: bytes) -> dict[str, bytes]:
    """The files of a .conda by their paths, those below info too."""
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(package)) as outer:
        for member in outer.namelist():
            if member.endswith(".tar.zst"):
                data = zstandard.ZstdDecompressor().decompressobj().decompress(outer.read(member))
                with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                    found |= {each.name: tar.extractfile(each).read() for each in tar if each.isfile()}  # type: ignore[union-attr]
    return found


def _packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    packer = zstandard.ZstdCompressor(19).compressobj()
    return packer.compress(out.getvalue()) + packer.flush()
