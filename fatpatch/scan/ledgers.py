"""The files of installed packages, as their installers wrote them down: RECORD, conda-meta and package.json.

Sources: PyPA "Recording installed projects"; conda's PrefixRecord; npm's package.json. Paths that lead out of the folder are left out.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

from fatpatch.base.json_text import json_object
from fatpatch.base.patterns import lazy_pattern

LIBRARY: Final = lazy_pattern(r"\.(?:so(?:\.[0-9.]+)?|dll|pyd|node|exe|cubin|fatbin|ptx|hsaco|co|hipfb|kpack)\Z", re.IGNORECASE)
"""Names of files that may be loaded and may hold GPU code."""

ARCHIVE: Final = lazy_pattern(r"\.(?:whl|zip|conda|llamafile|a|lib|tgz|tar(?:\.(?:gz|bz2|xz|zst))?)\Z", re.IGNORECASE)
"""Names of archives, each of which is a release of its own."""

NAME: Final = lazy_pattern(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9])?\Z")
INFO: Final = ".dist-info"
MAX_FILES: Final = 200_000
_MAX_RECORD: Final = 64 << 20
_MAX_METADATA: Final = 64 << 10
_NODE_NAME: Final = lazy_pattern(r"(?:@[a-z0-9~-][a-z0-9._~-]{0,100}/)?[A-Za-z0-9~-][A-Za-z0-9._~-]{0,100}\Z")
_CUDA: Final = lazy_pattern(r"^cuda\s*(?::[^=\n]*)?=\s*['\"](\d{1,2}\.\d{1,2})['\"]", re.MULTILINE)
_VERSION: Final = lazy_pattern(r"[0-9A-Za-z.!+_-]{1,60}\Z")


def is_name(text: str) -> bool:
    """Whether a text can be the name of a distribution."""
    return NAME.fullmatch(text) is not None and not LIBRARY.search(text)


def of_record(root: str, info: str) -> tuple[str, str, list[str]]:
    """(name, version, libraries) of the distribution whose ``*.dist-info`` folder lies in ``root``."""
    name, version = name_and_version(info, text_of(os.path.join(root, info, "METADATA"), _MAX_METADATA))
    return name, version, record_libraries(text_of(os.path.join(root, info, "RECORD"), _MAX_RECORD))


def name_and_version(info: str, metadata: str) -> tuple[str, str]:
    """Of a distribution, by its METADATA; as far as that does not say, by the name of its ``*.dist-info`` folder."""
    name, _, version = info.removesuffix(INFO).partition("-")
    for line in metadata.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        if key.lower() == "name" and NAME.fullmatch(value.strip()):
            name = value.strip()
        elif key.lower() == "version":
            version = value.strip()[:60]
    return name, version


def record_libraries(record: str) -> list[str]:
    """The libraries that the text of a RECORD names, sorted."""
    import csv

    rows = csv.reader(record.replace("\0", "").splitlines())
    files: set[str] = set()
    with suppress(csv.Error):  # a row longer than the parser takes: what came before it counts
        files.update(_plain(row[0]) for row in rows if row and LIBRARY.search(row[0]) and inside(row[0]))
    return sorted(files)[:MAX_FILES]


def of_conda(path: str) -> tuple[str, str, list[str], frozenset[str]] | None:
    """As ``conda_package``, by the path of a document in conda-meta."""
    return conda_package(text_of(path, _MAX_RECORD))


def conda_package(text: str) -> tuple[str, str, list[str], frozenset[str]] | None:
    """(name, version, libraries, ``*.dist-info`` folders) of a conda package by its document in conda-meta; None where it is none."""
    document = json_object(text)
    name, version, files = document.get("name"), document.get("version"), document.get("files")
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(files, list):
        return None
    paths = [_plain(each) for each in files if isinstance(each, str) and inside(each)]
    infos = frozenset(each.rpartition("/")[0] for each in paths if each.endswith(f"{INFO}/METADATA"))
    return name, _version(version), sorted(each for each in paths if LIBRARY.search(each))[:MAX_FILES], infos


def of_node(path: str) -> tuple[str, str] | None:
    """(name, version) of a node package by its package.json; None where it is none."""
    document = json_object(text_of(path, _MAX_RECORD))
    name = document.get("name")
    if not isinstance(name, str) or not _NODE_NAME.fullmatch(name):
        return None
    return name, _version(document.get("version"))


def cuda_of_torch(version: str) -> str | None:
    """``12.8``, as torch/version.py says it."""
    found = _CUDA.search(version)
    return found[1] if found else None


def inside(path: str) -> bool:
    """Whether a path of a ledger stays in its folder."""
    parts = path.replace("\\", "/").split("/")
    return bool(path) and not path.startswith(("/", "\\")) and ".." not in parts and ":" not in parts[0] and "\0" not in path


def text_of(path: str, most: int) -> str:
    """The text of a file as far as it goes; empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(most)
    except (OSError, ValueError):
        return ""


def _version(value: object) -> str:
    return value if isinstance(value, str) and _VERSION.fullmatch(value) else ""


def _plain(path: str) -> str:
    return path.replace("\\", "/")
