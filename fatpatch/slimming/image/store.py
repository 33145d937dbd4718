"""The files of a stored image: an OCI layout as a folder or tar archive, or a docker-archive. Each is a file that can be read.

Sources: OCI image specification 1.1 (image-layout.md); Docker image specification 1.2 (manifest.json).
"""

from __future__ import annotations

import json
import os
import posixpath
import shutil
import tarfile
from collections.abc import Iterator
from typing import Any, Final

from fatpatch.base.errors import EditError, FormatError
from fatpatch.base.records import NamedTuple

INDEX: Final = "index.json"
MANIFEST: Final = "manifest.json"
_LAYOUT: Final = "oci-layout"
_MAX_DOCUMENT: Final = 16 << 20
_MAX_FILES: Final = 100_000
_HEADS: Final = 64


class ImageFiles(NamedTuple):
    """Where each file of an image lies, by its name in it; ``links``: names that lead to others; ``archive``: whether it was a tar."""

    shown: str
    files: dict[str, str]
    links: dict[str, str]
    archive: bool

    def path(self, name: str) -> str | None:
        """The file of a name, through links; None where there is none."""
        for _ in range(8):
            if name in self.files:
                return self.files[name]
            if name not in self.links:
                return None
            name = self.links[name]
        return None

    def real_name(self, name: str) -> str:
        """The name that a link leads to."""
        for _ in range(8):
            if name not in self.links:
                break
            name = self.links[name]
        return name

    def document(self, name: str) -> Any:
        """A JSON document. FormatError when it is none."""
        path = self.path(name)
        if path is None:
            raise FormatError(f"has no {name[:100]!a}", locator=self.shown)
        try:
            if os.path.getsize(path) > _MAX_DOCUMENT:
                raise ValueError("too large")
            with open(path, "rb") as stream:
                return json.load(stream)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{name[:100]!a} is not a JSON document: {error}", locator=self.shown) from error


def is_image(path: str) -> bool:
    """Whether a path is an OCI layout, or a tar archive that begins like one or like a docker-archive."""
    if os.path.isdir(path):
        return os.path.isfile(os.path.join(path, _LAYOUT)) and os.path.isfile(os.path.join(path, INDEX))
    if not os.path.isfile(path) or os.path.getsize(path) < 1024:
        return False
    try:
        with tarfile.open(path, "r:") as archive:
            return any(plain(each.name) in (INDEX, MANIFEST, _LAYOUT) for each in archive)
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return False


def opened(path: str, shown: str, scratch: str) -> ImageFiles:
    """The files of an image; those of an archive are unpacked into ``scratch``, under numbers for names."""
    if os.path.isdir(path):
        return ImageFiles(shown, dict(_of_folder(path)), {}, False)
    files, links = dict[str, str](), dict[str, str]()
    try:
        with tarfile.open(path, "r:") as archive:
            for number, each in enumerate(archive):
                if number > _MAX_FILES:
                    raise FormatError(f"has more than {_MAX_FILES} files", locator=shown)
                name = plain(each.name)
                if each.isreg():
                    files[name] = os.path.join(scratch, f"file-{number}")
                    refuse_too_large(each.size, scratch, shown)
                    source = archive.extractfile(each)
                    assert source is not None
                    with open(files[name], "xb") as sink:
                        shutil.copyfileobj(source, sink, 1 << 20)
                elif each.issym():
                    links[name] = plain(posixpath.join(posixpath.dirname(name), each.linkname))
                elif each.islnk():
                    links[name] = plain(each.linkname)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise FormatError(f"is a damaged tar archive: {error}", locator=shown) from error
    return ImageFiles(shown, files, links, True)


def _of_folder(folder: str) -> Iterator[tuple[str, str]]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            full = os.path.join(root, name)
            if os.path.isfile(full) and not os.path.islink(full):
                yield os.path.relpath(full, folder).replace(os.sep, "/"), full


def refuse_too_large(size: int, scratch: str, shown: str) -> None:
    """EditError when there is no room for so many bytes."""
    if size > shutil.disk_usage(scratch).free:
        raise EditError(f"takes {size:,} bytes more than there is room for", locator=shown, hint="set TMPDIR to a place with more room")


def plain(name: str) -> str:
    """A name without the ways out of the archive."""
    return posixpath.normpath("/" + name)[1:]


def blob_name(digest: str) -> str:
    """Where a layout keeps a digest. FormatError for what is none."""
    algorithm, _, number = str(digest).partition(":")
    if not (algorithm.isalnum() and number.isalnum()):
        raise FormatError(f"{str(digest)[:100]!a} is not a digest")
    return f"blobs/{algorithm}/{number}"


def write_store(files: dict[str, str], links: dict[str, str], to: str, *, archive: bool) -> None:
    """Write files (name, path of the bytes) as a folder, or as an archive; without owners and times, which images do not need."""
    if not archive:
        for name, path in files.items():
            full = os.path.join(to, name)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            shutil.copyfile(path, full)
        return
    with tarfile.open(to, "w", format=tarfile.PAX_FORMAT) as out:
        for name, path in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = os.path.getsize(path), 0o644
            with open(path, "rb") as source:
                out.addfile(info, source)
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, posixpath.relpath(target, posixpath.dirname(name) or ".")
            out.addfile(info)
