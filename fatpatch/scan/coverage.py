"""Counts over a tree: the summary, the table of targets, the kernel x target matrix and its holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from fatpatch.base.patterns import lazy_pattern
from fatpatch.base.records import NamedTuple
from fatpatch.model.diagnostics import NOT_READ
from fatpatch.model.kinds import ImageKind, ModuleKind
from fatpatch.model.target import target_key
from fatpatch.model.tree import Diagnostic, ImageEntry, Node, Payload

_ISA = {ImageKind.PTX: "ISA {}", ImageKind.SPIRV: "SPIR-V {}"}
_NUMBER = lazy_pattern(r"\d+")


class TreeSummary(NamedTuple):
    """Counts of everything below a node; ``kernels`` is the number of distinct names, None when not read."""

    fatbins: int
    bundles: int
    images: int
    images_by_target: tuple[tuple[str, int], ...]
    kernels: int | None


class TargetRow:
    """One line of the table of targets. Sizes are bytes; ``stored`` is None when images share one blob.

    ``facts`` are the (codec, producer, version of intermediate code in words) that occur.
    """

    __slots__ = ("facts", "images", "payloads", "size", "stored", "target")

    def __init__(self, target: str, images: Sequence[ImageEntry], payloads: int) -> None:
        self.target = target
        self.images, self.payloads = len(images), payloads
        self.stored = total_of(image.stored_size for image in images)
        self.size = total_of(image.size for image in images)
        seen = {(image.compression, image.producer, image.kind, image.code_version) for image in images}
        self.facts = {(codec, producer, version and _ISA.get(kind, "").format(version)) for codec, producer, kind, version in seen}


def total_of(sizes: Iterable[int | None]) -> int | None:
    """The sum; None where one is not known."""
    known = list(sizes)
    return None if None in known else sum(filter(None, known))


def payloads_below(node: Node) -> Iterator[tuple[Node, Payload]]:
    """(holder, payload) of a node and its members, in document order: members first, as they are read."""
    for member in node.members:
        yield from payloads_below(member)
    for payload in node.payloads:
        yield node, payload


def members_below(node: Node) -> Iterator[Node]:
    """Every member of a node, and theirs, the inner ones first."""
    for member in node.members:
        yield from members_below(member)
        yield member


def holders(node: Node) -> list[Node]:
    """The members of a node that hold GPU code, the inner ones first, and the node itself where it does."""
    return [each for each in (*members_below(node), node) if each.payloads]


def stored_share(image: ImageEntry) -> int:
    """The stored bytes of an image; of a compressed blob that several share, its part by unpacked bytes."""
    if image.stored_size is not None:
        return image.stored_size
    return image.stored_bytes * (image.size or 0) // image.blob_size if image.blob_size else 0


def all_diagnostics(node: Node) -> Iterator[Diagnostic]:
    """Those of the members first, in document order."""
    for member in node.members:
        yield from all_diagnostics(member)
    yield from node.diagnostics


def parts_not_read(node: Node) -> list[Diagnostic]:
    """Files and containers below a node that are recognised and not read."""
    return [item for item in all_diagnostics(node) if item.field == NOT_READ]


def summarize(node: Node, kernels: int | None = None) -> TreeSummary:
    """The summary of everything below ``node``."""
    counts: dict[str, int] = {}
    fatbins = bundles = images = 0
    for _, payload in payloads_below(node):
        fatbins += payload.kind == ModuleKind.FATBIN
        bundles += payload.kind == ModuleKind.OFFLOAD_BUNDLE
        images += len(payload.images)
        for image in payload.images:
            counts[image.target] = counts.get(image.target, 0) + 1
    by_target = tuple(sorted(counts.items(), key=lambda item: target_key(item[0])))
    return TreeSummary(fatbins=fatbins, bundles=bundles, images=images, images_by_target=by_target, kernels=kernels)


def target_table(payloads: Iterable[Payload]) -> list[TargetRow]:
    """One row a target, over the payloads of one place."""
    by_target: dict[str, list[ImageEntry]] = {}
    holding: dict[str, int] = {}
    for payload in payloads:
        for image in payload.images:
            by_target.setdefault(image.target, []).append(image)
        for target in {image.target for image in payload.images}:
            holding[target] = holding.get(target, 0) + 1
    return [TargetRow(target, by_target[target], holding[target]) for target in sorted(by_target, key=target_key)]
