"""What is known of a container image and of the files in it, as records. Sizes are bytes."""

from __future__ import annotations

from fatpatch.base.records import NamedTuple


class LayerFacts(NamedTuple):
    """One layer. ``size``: stored; ``unpacked``: None where it was not read to its end; ``digest`` as the manifest has it.

    ``created_by``: the build step that its history names.
    """

    digest: str
    size: int
    unpacked: int | None
    codec: str
    created_by: str | None = None


class FileOrigin(NamedTuple):
    """The layer that brought a file, counted from 1; its other names (hard links); and older copies of it in lower layers.

    ``dead_bytes``: what these copies take, unpacked.
    """

    layer: int
    digest: str
    also: tuple[str, ...] = ()
    dead_copies: int = 0
    dead_bytes: int = 0


class PackageFiles(NamedTuple):
    """A package that is installed in an image, by its RECORD or its conda-meta: its libraries, as absolute paths in the image."""

    name: str
    version: str
    root: str
    files: tuple[str, ...]


class ContainerImage(NamedTuple):
    """A container image: the name that its index has for it, its platform (linux/amd64), and its layers.

    ``names``: of all libraries in it and of links to them, in small letters. ``kernel_files``: as of a node.
    ``deleted``, ``deleted_bytes``: libraries of lower layers that no path leads to, and that the image still carries. ``cuda``: by the
    folder of the packages the release that their PyTorch was built with.
    """

    name: str
    platform: str
    layers: tuple[LayerFacts, ...]
    deleted: int = 0
    deleted_bytes: int = 0
    packages: tuple[PackageFiles, ...] = ()
    cuda: tuple[tuple[str, str], ...] = ()
    names: frozenset[str] = frozenset()
    kernel_files: tuple[str, ...] = ()
