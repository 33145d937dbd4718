"""What is installed below a folder, for ``slim``: each library once, and the ledgers that name it.

A link that leads out of the folder is left alone: what it leads to belongs to others, such as an installer's cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Final

from fatpatch.base.errors import InputError
from fatpatch.base.records import NamedTuple
from fatpatch.scan.distributions import Distribution, Installed, installed
from fatpatch.slimming.ledger import read_ledger

_META: Final = "conda-meta"
_LIBRARY_ENDS: Final = (".so", ".dll", ".pyd", ".exe", ".cubin", ".fatbin", ".hsaco", ".co")


class Package(NamedTuple):
    """A distribution or conda package. ``files``: its libraries, as paths from the folder that is slimmed.

    ``ledger``: path of its RECORD or conda-meta document, "" where none names the files; paths in it count from ``base``.
    """

    name: str
    version: str
    files: tuple[str, ...]
    ledger: str
    base: str

    @property
    def shown(self) -> str:
        """``torch 2.11.0``."""
        return f"{self.name} {self.version}".strip()


class Tree(NamedTuple):
    """A folder with packages. ``linked``: libraries that are links out of it; ``where``: its packages as doctor sees them."""

    root: str
    packages: tuple[Package, ...]
    linked: tuple[str, ...]
    where: Installed

    @property
    def files(self) -> tuple[str, ...]:
        """Every library once, by its path from the root."""
        return tuple(dict.fromkeys(path for package in self.packages for path in package.files))


def tree_of(folder: str, shown: str) -> Tree:
    """Read what is installed in a virtual or conda environment, a site-packages folder, or any folder. InputError when it is none."""
    where = installed(folder, shown)
    root = os.path.realpath(folder)
    found = [_package(root, each) for each in where.recorded]
    if os.path.isdir(os.path.join(root, _META)):
        found = [*(package for package in found if package.ledger), *_conda(root)]
    linked = list[str]()
    packages = []
    for package in found:
        own, out = list[str](), list[str]()
        for path in package.files:
            kind = _standing(root, path)
            if kind is not None:
                (own if kind else out).append(path)
        linked += out
        packages.append(package._replace(files=tuple(own)))
    return Tree(root, tuple(package for package in packages if package.files), tuple(dict.fromkeys(linked)), where)


def _package(root: str, each: Distribution) -> Package:
    base = os.path.relpath(os.path.realpath(each.root), root)
    files = tuple(_joined(base, path) for path in each.files)
    ledger = _joined(base, f"{each.info}/RECORD") if each.info else ""
    return Package(each.name, each.version, files, ledger, "" if base == "." else base.replace(os.sep, "/"))


def _conda(root: str) -> Iterator[Package]:
    """The packages of a conda environment, by conda-meta."""
    folder = os.path.join(root, _META)
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".json"):
            continue
        try:
            document = json.loads(read_ledger(os.path.join(folder, name)))
            files = [path for path in document["files"] if isinstance(path, str) and _is_library(path)]
            yield Package(str(document["name"]), str(document["version"]), tuple(files), f"{_META}/{name}", "")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"is not a conda-meta document: {error}", locator=f"{_META}/{name}") from error


def _is_library(path: str) -> bool:
    base = os.path.basename(path).lower()
    return base.endswith(_LIBRARY_ENDS) or ".so." in base


def _joined(base: str, path: str) -> str:
    return path if base in (".", "") else f"{base}/{path}".replace(os.sep, "/")


def _standing(root: str, path: str) -> bool | None:
    """True for a file below the root; False for a link out of it; None for anything else."""
    full = os.path.join(root, path)
    if not os.path.isfile(full):
        return None
    real = os.path.realpath(full)
    if os.path.commonpath([root, real]) != root:
        return False if os.path.commonpath([root, os.path.normpath(full)]) == root else None
    return True if not os.path.islink(full) else None  # the file that an inner link leads to is edited by its own name
