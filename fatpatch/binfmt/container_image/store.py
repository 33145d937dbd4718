"""Where the blobs of container images lie: in an archive, in a folder. A store finds them by path or by digest."""

from __future__ import annotations

import os
import platform
import posixpath
from collections.abc import Iterable
from typing import Protocol

from fatpatch.base.errors import FatpatchError, InputError
from fatpatch.base.limits import Remote
from fatpatch.base.source import Source
from fatpatch.binfmt.tar import read as tar
from fatpatch.model.kinds import Codec
from fatpatch.model.tree import Member

INDEX, MANIFEST, LAYOUT = "index.json", "manifest.json", "oci-layout"
_MAX_LINKS = 8


class BlobStore(Protocol):
    """What the readers of manifests ask: all stored bytes, and those of one name."""

    size: int
    root: str | None
    """The digest of the document to begin with; None where its path says it."""
    platform: str | None
    """What is read of an image for several platforms where nothing else is asked for; None for all."""

    def open(self, name: str, *, manifest: bool = False) -> Source | None:
        """The bytes of a path or a digest; None where there are none. ``manifest``: whether a manifest or an index is meant."""

    def close(self) -> None:
        """Let go of what is open."""


def path_of(name: str) -> str:
    """Where an OCI layout keeps a digest; any other name is a path, without the ways out of it."""
    algorithm, _, digest = name.partition(":")
    if digest and algorithm.isalnum() and digest.isalnum():
        return f"blobs/{algorithm}/{digest}"
    return posixpath.normpath("/" + name)[1:]


class ArchiveStore:
    """The files of a tar archive: of a docker-archive, or of an OCI layout. Links lead to other members."""

    root: str | None = None
    platform: str | None = None

    def __init__(self, source: Source, entries: Iterable[tar.TarEntry]) -> None:
        self.size = source.size
        self._source = source
        self._members: dict[str, Member] = {}
        self._links: dict[str, str] = {}
        for entry in entries:
            name = path_of(entry.name)
            if entry.member is not None:
                self._members[name] = entry.member
            elif entry.kind == tar.LINK:
                self._links[name] = path_of(posixpath.join(posixpath.dirname(name), entry.link))
            elif entry.kind == tar.HARD_LINK:
                self._links[name] = path_of(entry.link)

    def open(self, name: str, *, manifest: bool = False) -> Source | None:
        """The member of that name, in place."""
        path = path_of(name)
        for _ in range(_MAX_LINKS):
            member = self._members.get(path)
            if member is not None:
                return self._source.slice(member.offset, member.stored_size) if member.method == Codec.STORED else None
            if path not in self._links:
                return None
            path = self._links[path]
        return None

    def close(self) -> None:
        """The archive belongs to its reader."""


class FolderStore:
    """An OCI layout that is a folder. Links out of it lead nowhere."""

    root: str | None = None
    platform: str | None = None

    def __init__(self, folder: str) -> None:
        self._folder = os.path.realpath(folder)
        self._open: list[Source] = []
        self.size = _bytes_below(self._folder)

    def open(self, name: str, *, manifest: bool = False) -> Source | None:
        """The file of that name below the folder."""
        real = os.path.realpath(os.path.join(self._folder, *path_of(name).split("/")))
        if os.path.commonpath([self._folder, real]) != self._folder or not os.path.isfile(real):
            return None
        try:
            source = Source.open(real)
        except FatpatchError:
            return None
        self._open.append(source)
        return source

    def close(self) -> None:
        """Close the files."""
        for source in self._open:
            source.close()


class RegistryStore:
    """An image of a registry. InputError where the registry cannot be asked; a blob that it does not have is not there."""

    def __init__(self, name: str, options: Remote) -> None:
        from fatpatch.remote.registry import Registry

        self._registry = Registry(name, options)
        self.root: str | None = self._registry.digest
        self.platform: str | None = f"linux/{_MACHINES.get(machine := platform.machine().lower(), machine)}"
        self.size = options.most

    def open(self, name: str, *, manifest: bool = False) -> Source | None:
        """The manifest or blob of a digest."""
        try:
            return self._registry.manifest(name) if manifest else self._registry.blob(name)
        except InputError as error:
            if "404" not in error.message:
                raise
            return None

    def close(self) -> None:
        """Close the connections."""
        self._registry.close()


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "armv7l": "arm"}


def _bytes_below(folder: str) -> int:
    total = 0
    for where, _, files in os.walk(os.path.join(folder, "blobs")):
        for name in files:
            try:
                total += os.lstat(os.path.join(where, name)).st_size
            except OSError:
                continue
    return total
