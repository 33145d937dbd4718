"""What is installed in a folder: distributions by their RECORD, and the libraries that no distribution owns.

Sources: PyPA specifications "Recording installed projects" and "Virtual environments" (pyvenv.cfg).
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, NamedTuple

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.base.limits import Limits
from fatpatch.base.locator import escape, join
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import Node
from fatpatch.scan.walk import Progress, inspected

_LIBRARY: Final = re.compile(r"\.(?:so(?:\.[0-9.]+)?|dll|pyd|node|exe|cubin|fatbin|ptx|hsaco|co|hipfb|kpack)\Z", re.IGNORECASE)
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,100}[A-Za-z0-9])?\Z")
_CUDA: Final = re.compile(r"^cuda\s*(?::[^=\n]*)?=\s*['\"](\d{1,2}\.\d{1,2})['\"]", re.MULTILINE)
_INFO: Final = ".dist-info"
_MAX_RECORD: Final = 64 << 20
_MAX_METADATA: Final = 64 << 10
_MAX_FILES: Final = 200_000
_HEAD: Final = 4


class Distribution(NamedTuple):
    """An installed distribution, or with an empty version the files that none owns.

    ``files``: paths below ``root`` that may hold GPU code. ``info``: its folder with RECORD, below ``root``.
    """

    name: str
    version: str
    root: str
    files: tuple[str, ...]
    info: str = ""

    @property
    def shown(self) -> str:
        """``torch 2.11.0``."""
        return f"{self.name} {self.version}".strip()


class Installed(NamedTuple):
    """A folder of installed packages. ``cuda``: the release that its PyTorch was built with.

    ``names``: in small letters, of all files in it that may be loaded.
    """

    shown: str
    distributions: tuple[Distribution, ...]
    cuda: str | None
    names: frozenset[str]


def active_environment() -> str | None:
    """The folder of the virtual or conda environment that the shell has activated, else of the Python that runs this."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if folder := os.environ.get(variable):
            return folder
    return sys.prefix if sys.prefix != sys.base_prefix else None


def site_packages(folder: str) -> list[str]:
    """Where an environment keeps its packages; the folder itself where it is none."""
    found = []
    for library in ("lib", "lib64", "Lib"):
        base = os.path.join(folder, library)
        if os.path.isdir(os.path.join(base, "site-packages")):
            found.append(os.path.join(base, "site-packages"))
        elif os.path.isdir(base):
            pythons = [name for name in sorted(os.listdir(base)) if re.fullmatch(r"python\d\.\d{1,2}t?", name)]
            found += [path for name in pythons if os.path.isdir(path := os.path.join(base, name, "site-packages"))]
    distinct = {os.path.realpath(path): path for path in found}
    return list(distinct.values()) or [folder]


def is_name(text: str) -> bool:
    """Whether a text can be the name of a distribution."""
    return _NAME.fullmatch(text) is not None and not _LIBRARY.search(text)


def installed(folder: str, shown: str) -> Installed:
    """What is installed in a folder: an environment, a site-packages folder, or any folder with libraries. InputError when it is none."""
    if not os.path.isdir(folder):
        raise InputError("is no folder", locator=shown)
    found: list[Distribution] = []
    names: set[str] = set()
    cuda = None
    for root in site_packages(folder):
        files = list(_libraries(root))
        names.update(os.path.basename(path).lower() for path in files)
        owned: set[str] = set()
        for entry in sorted(os.listdir(root)):
            if entry.endswith(_INFO):
                distribution = _distribution(root, entry)
                owned.update(distribution.files)
                found.append(distribution)
        rest = tuple(path for path in files if path not in owned)
        if rest:
            found.append(Distribution("other files" if found else os.path.basename(os.path.realpath(root)), "", root, rest))
        cuda = cuda or _cuda_of_torch(root)
    return Installed(shown, tuple(found), cuda, frozenset(names))


def named(name: str, where: Installed) -> Distribution:
    """The distribution of a name, spelled in any way that pip takes. InputError, with the nearest names, when there is none."""
    wanted = _plain(name)
    for each in where.distributions:
        if _plain(each.name) == wanted and each.version:
            return each
    import difflib

    close = difflib.get_close_matches(wanted, [_plain(each.name) for each in where.distributions], 3, 0.6)
    hint = f"did you mean {' or '.join(close)}?" if close else "give a file, a folder, a URL, or the name of an installed distribution"
    raise InputError(f"no file of that name, and no such distribution in {where.shown}", locator=name, hint=hint)


@contextmanager
def opened(distribution: Distribution, limits: Limits, progress: Progress | None = None) -> Iterator[Node]:
    """The files of a distribution as the members of one node; what cannot be read is a diagnostic. Links out of the folder are left out."""
    members, diagnostics = [], Diagnostics()
    root = os.path.realpath(distribution.root)
    with ExitStack() as stack:
        for path in distribution.files:
            real = os.path.realpath(os.path.join(distribution.root, path))
            if os.path.commonpath([root, real]) != root or not os.path.isfile(real) or not _worth_reading(real):
                continue
            locator = join(escape(distribution.name), escape(path))
            try:
                node = stack.enter_context(inspected(real, name=locator, limits=limits, progress=progress))
            except FatpatchError as error:
                diagnostics.error(locator, None, error.message)
                continue
            members.append(node._replace(path=path))
        size = sum(node.size for node in members)
        yield Node(
            locator=escape(distribution.name),
            path=distribution.shown,
            size=size,
            container="folder",
            detail="",
            members=tuple(members),
            payloads=(),
            diagnostics=diagnostics.finish(),
            member_count=len(members),
        )


def _worth_reading(path: str) -> bool:
    """Whether a file begins like one that may hold GPU code; most libraries of Python packages are small and hold none."""
    try:
        with open(path, "rb") as stream:
            return bool(stream.read(_HEAD))
    except OSError:
        return True


def _libraries(root: str) -> Iterator[str]:
    """The paths below a folder that may be loaded, sorted; links to folders are not followed."""
    count = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            if _LIBRARY.search(name):
                count += 1
                if count > _MAX_FILES:
                    raise InputError(f"holds more than {_MAX_FILES} libraries", locator=root, hint="name a folder in it")
                yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def _distribution(root: str, info: str) -> Distribution:
    name, _, version = info.removesuffix(_INFO).partition("-")
    metadata = _text(os.path.join(root, info, "METADATA"), _MAX_METADATA)
    for line in metadata.split("\n\n", 1)[0].splitlines():
        key, _, value = line.partition(":")
        if key.lower() == "name" and _NAME.fullmatch(value.strip()):
            name = value.strip()
        elif key.lower() == "version":
            version = value.strip()[:60]
    rows = csv.reader(_text(os.path.join(root, info, "RECORD"), _MAX_RECORD).splitlines())
    files = sorted({row[0].replace("\\", "/") for row in rows if row and _LIBRARY.search(row[0]) and _inside(row[0])})
    return Distribution(name, version, root, tuple(files[:_MAX_FILES]), info)


def _inside(path: str) -> bool:
    """Whether a path of a RECORD stays in its folder."""
    parts = path.replace("\\", "/").split("/")
    return not path.startswith(("/", "\\")) and ".." not in parts and ":" not in parts[0]


def _text(path: str, most: int) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(most)
    except OSError:
        return ""


def _cuda_of_torch(root: str) -> str | None:
    """``12.8``, as torch/version.py says it."""
    found = _CUDA.search(_text(os.path.join(root, "torch", "version.py"), _MAX_METADATA))
    return found[1] if found else None


def _plain(name: str) -> str:
    """The normalized name (PyPA, name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()
