"""Whether a path or an archive is a container image: cheap to ask of every file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fatpatch.base.limits import Limits
from fatpatch.base.source import Source
from fatpatch.model.diagnostics import Diagnostics
from fatpatch.model.tree import Container
from fatpatch.remote.inputs import is_image_layout, is_registry_image

if TYPE_CHECKING:
    from fatpatch.binfmt.container_image.store import BlobStore

_ROOTS = ("index.json", "manifest.json")


def store_at(path: str, limits: Limits | None) -> BlobStore | None:
    """The blobs of an OCI layout that is a folder, or of an image in a registry; None for any other path."""
    if not is_image_layout(path) and not is_registry_image(path):
        return None
    from fatpatch.binfmt.container_image import store

    if is_image_layout(path):
        return store.FolderStore(path)
    return store.RegistryStore(path, (limits or Limits()).remote)


def store_in(source: Source, container: Container) -> BlobStore | None:
    """The blobs of a container image; None where a tar archive is another one."""
    if not any(member.name.removeprefix("./") in _ROOTS for member in container.members):
        return None
    from fatpatch.binfmt.container_image.manifest import is_image
    from fatpatch.binfmt.container_image.store import ArchiveStore
    from fatpatch.binfmt.tar.read import entries

    store = ArchiveStore(source, entries(source, "", Diagnostics()))
    return store if is_image(store) else None
