"""The packages that are installed in a container image: Python distributions by RECORD, conda packages by conda-meta.

Sources: PyPA specification "Recording installed projects"; conda's documentation of conda-meta.
"""

from __future__ import annotations

import csv
import json
import posixpath
import re
from collections.abc import Iterable, Sequence

from fatpatch.model.container_image import PackageFiles

_TEXT = re.compile(r"(?:\A|/)(?:[^/]+\.dist-info/(?:RECORD|METADATA)|conda-meta/[^/]+\.json|torch/version\.py)\Z")
_MAX_TEXT = 32 << 20
_MAX_FILES = 500_000
LIBRARY = re.compile(r"\.(?:so(?:\.[0-9.]+)?|dll|pyd|node|exe|cubin|fatbin|ptx|hsaco|co|hipfb|kpack)\Z", re.IGNORECASE)
_CUDA = re.compile(r"^cuda\s*(?::[^=\n]*)?=\s*['\"](\d{1,2}\.\d{1,2})['\"]", re.MULTILINE)


def is_package_text(path: str) -> bool:
    """Whether a file says what is installed, by its name."""
    return _TEXT.search(path) is not None


class PackageTexts:
    """Collects what the texts of an image say; of a long one only the libraries that it names are kept."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, ...]] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._conda: list[PackageFiles] = []
        self._cuda: dict[str, str] = {}
        self._left = _MAX_FILES

    def takes(self, paths: Sequence[str]) -> bool:
        """Whether a file is such a text by any of its names."""
        return any(map(is_package_text, paths))

    def add(self, paths: Sequence[str], chunks: Iterable[bytes]) -> None:
        """Read one text, under each of its names that says what it is."""
        pieces, size = [], 0
        for chunk in chunks:
            size += len(chunk)
            if size > _MAX_TEXT:
                return
            pieces.append(chunk)
        text = b"".join(pieces).decode("utf-8", "replace")
        for path in filter(is_package_text, paths):
            self._add(path, text)

    def packages(self) -> tuple[tuple[PackageFiles, ...], tuple[tuple[str, str], ...]]:
        """(the packages, by name; by root, the CUDA release of the PyTorch there). Each file is of one package, a distribution first."""
        found, owned = [], set[str]()
        for info, files in sorted(self._files.items()):
            root, folder = posixpath.split(info)
            name, version = self._names.get(info) or name_and_version(folder, "")
            found.append(PackageFiles(name, version, root, files))
            owned.update(files)
        for each in sorted(self._conda):
            rest = tuple(path for path in each.files if path not in owned)
            if rest or not each.files:
                found.append(each._replace(files=rest))
                owned.update(rest)
        return tuple(sorted(found, key=lambda each: (each.name.lower(), each.root))), tuple(sorted(self._cuda.items()))

    def _add(self, path: str, text: str) -> None:
        folder, name = posixpath.split(path)
        if name == "RECORD":
            root = posixpath.dirname(folder)
            self._files[folder] = self._taken(posixpath.normpath(posixpath.join(root, each)) for each in record_libraries(text))
        elif name == "METADATA":
            self._names[folder] = name_and_version(posixpath.basename(folder), text[: 64 << 10])
        elif name == "version.py":
            cuda = cuda_of_torch(text)
            if cuda is not None:
                self._cuda[posixpath.dirname(folder)] = cuda
        else:
            self._add_conda(posixpath.dirname(folder), text)

    def _add_conda(self, prefix: str, text: str) -> None:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not isinstance(value.get("files"), list):
            return
        files = self._taken(
            posixpath.normpath(posixpath.join(prefix, each)) for each in value["files"] if isinstance(each, str) and LIBRARY.search(each)
        )
        self._conda.append(PackageFiles(value["name"][:100], str(value.get("version", ""))[:60], prefix, files))

    def _taken(self, paths: Iterable[str]) -> tuple[str, ...]:
        files = tuple(sorted(set(paths)))[: self._left]
        self._left -= len(files)
        return files


def name_and_version(info: str, metadata: str) -> tuple[str, str]:
    """Of a distribution, by its METADATA; as far as that does not say, by the name of its .dist-info folder."""
    name, _, version = info.removesuffix(".dist-info").partition("-")
    for line in metadata.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        if key.lower() == "name" and value.strip():
            name = value.strip()[:100]
        elif key.lower() == "version":
            version = value.strip()[:60]
    return name, version


def record_libraries(record: str) -> set[str]:
    """The paths in a RECORD that may be loaded, as it has them."""
    try:
        rows = list(csv.reader(record.replace("\0", "").splitlines()))
    except csv.Error:
        return set()
    return {row[0].replace("\\", "/") for row in rows if row and LIBRARY.search(row[0])}


def cuda_of_torch(version: str) -> str | None:
    """``12.8``, as torch/version.py says it."""
    found = _CUDA.search(version)
    return found[1] if found else None
