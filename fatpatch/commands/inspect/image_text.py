"""Text of ``inspect`` for container images: layers, and what of them a container does not see."""

from __future__ import annotations

from collections.abc import Iterator

from fatpatch.api.inspection import kernel_folders, root_of
from fatpatch.base.words import columns, plural, safe, size
from fatpatch.model.container_image import ContainerImage, FileOrigin
from fatpatch.model.tree import Node

_STEP = 60
_MAX_NAMES = 2


def origin_words(origin: FileOrigin) -> str:
    """``layer 2 (sha256:12ab...), also /opt/x.so, 1 older copy of 3.1 MB in lower layers``."""
    words = [f"layer {origin.layer}"]
    if origin.also:
        words.append(f"also {safe(origin.also[0], 80)}{f' and {len(origin.also) - 1} more names' if len(origin.also) > 1 else ''}")
    if origin.dead_copies:
        words.append(f"{plural(origin.dead_copies, 'older copy', 'older copies')} below: {size(origin.dead_bytes)}")
    return ", ".join(words)


def image_lines(node: Node, *, verbose: bool) -> Iterator[str]:
    """What to say of each image of a file besides its libraries; ``verbose``: its layers."""
    if node.image is not None:
        yield from _lines(node, node.image, verbose)
    for member in node.members:
        if member.image is not None:
            yield from _lines(member, member.image, verbose)


def kernel_folder_lines(node: Node) -> Iterator[str]:
    """Which GPUs a folder of kernel libraries has files for, and what they lack beside their siblings."""
    for folder in kernel_folders(node.kernel_files, root_of(node.detail)):
        yield f"  {folder.library} kernels{f' in {safe(folder.folder)}' if folder.folder else ''}:"
        rows = [(each.target, str(each.files), _missing(each.missing)) for each in folder.targets]
        yield from (f"    {line}" for line in columns(("target", "files", "lacks, and others have"), rows, left=frozenset({0, 2})))


def _missing(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return safe(", ".join(names[:_MAX_NAMES])) + more if names else "-"


def _lines(node: Node, image: ContainerImage, verbose: bool) -> Iterator[str]:
    dead = [member.origin for member in node.members if member.origin is not None and member.origin.dead_copies]
    if dead or image.deleted:
        total = sum(origin.dead_bytes for origin in dead) + image.deleted_bytes
        copies = sum(origin.dead_copies for origin in dead)
        yield (
            f"  lower layers still carry {plural(copies + image.deleted, 'library', 'libraries')} that no container sees: {size(total)} "
            f"unpacked ({copies} overwritten, {image.deleted} deleted)"
        )
    if verbose:
        rows = [
            (str(number), layer.digest[:19], size(layer.size), size(layer.unpacked), layer.codec, safe(layer.created_by or "", _STEP))
            for number, layer in enumerate(image.layers, 1)
        ]
        table = columns(("layer", "digest", "stored", "unpacked", "codec", "created by"), rows, left=frozenset({1, 4, 5}))
        yield from (f"  {line}" for line in table)
